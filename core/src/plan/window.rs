//! The rows of one chunk that are under way, and how far the watermark may move.

use std::collections::BTreeMap;

/// Rows finish in any order; the watermark only moves past rows before which none is open.
#[derive(Debug)]
pub struct Window<P: Ord> {
    open: BTreeMap<P, bool>,
    watermark: Option<P>,
}

impl<P: Ord> Default for Window<P> {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            watermark: None,
        }
    }
}

impl<P: Ord> Window<P> {
    /// A row is under way. Positions only grow.
    pub fn begin(&mut self, position: P) {
        self.open.insert(position, false);
    }

    /// A row is done, or durably held.
    pub fn finish(&mut self, position: &P) {
        if let Some(done) = self.open.get_mut(position) {
            *done = true;
        }
        while let Some(first) = self.open.first_entry().filter(|first| *first.get()) {
            self.watermark = Some(first.remove_entry().0);
        }
    }

    /// The highest finished position before which nothing is open; `None` = the watermark does not move.
    pub fn watermark(self) -> Option<P> {
        self.watermark
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_watermark_stays_before_the_first_open_row() {
        let finished = |order: &[i64]| {
            let mut window = Window::default();
            for row in [3, 5, 9] {
                window.begin(row);
            }
            for row in order {
                window.finish(row);
            }
            window.watermark()
        };
        assert_eq!(finished(&[9, 5]), None);
        assert_eq!(finished(&[9, 3]), Some(3));
        assert_eq!(finished(&[9, 5, 3]), Some(9));
    }

    proptest! {
        #[test]
        fn the_watermark_never_passes_an_open_row(order in Just((1..40).collect::<Vec<i64>>()).prop_shuffle(), finished in 0usize..39) {
            let mut window = Window::default();
            for row in 1..40 {
                window.begin(row);
            }
            for row in &order[..finished] {
                window.finish(row);
            }
            let first_open = order[finished..].iter().min().copied().unwrap_or(40);
            prop_assert_eq!(window.watermark().unwrap_or(0), first_open - 1);
        }
    }
}
