//! Parts: how a large object, or a plain one too large for one request, is cut into a multipart upload.
//!
//! A plan follows from its input alone, so the ETag of an upload can be computed before it and again at any time
//! after it.

use md5::{Digest, Md5};

use crate::manifest::{Extent, SegmentExtent};
use crate::row::is_md5;

/// The smallest part that S3 takes, but for the last.
pub const MIN_PART: u64 = 5 << 20;

/// The largest part, and the largest object in one request.
pub const MAX_PART: u64 = 5 << 30;

/// How many parts an upload can have.
pub const MAX_PARTS: usize = 10_000;

/// Part size of plain objects, as long as they need no more than [`MAX_PARTS`]: a part that fails is sent again.
const PLAIN_PART: u64 = 256 << 20;

/// Why an object cannot be uploaded at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    /// More than S3 can hold.
    #[error(
        "{length} bytes do not fit into 10,000 parts of at most 5 GiB: S3 cannot hold this object, exclude it"
    )]
    TooLarge {
        /// Length of the object.
        length: u64,
    },
}

/// One part of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPart {
    /// Where its bytes come from, in order; never empty.
    pub extents: Vec<Extent>,
    /// Length in bytes.
    pub length: u64,
    /// md5 of its bytes, where that is known beforehand: it is one whole segment.
    pub md5: Option<[u8; 16]>,
}

impl PlannedPart {
    fn new(extents: Vec<Extent>) -> Self {
        let md5 = match extents.as_slice() {
            [Extent::Inline(inline)] => Some(Md5::digest(inline.bytes()).into()),
            [
                Extent::Segment(SegmentExtent {
                    etag: Some(etag),
                    whole: true,
                    ..
                }),
            ] if is_md5(etag) => {
                let mut md5 = [0; 16];
                hex::decode_to_slice(etag, &mut md5).ok().map(|()| md5)
            }
            _ => None,
        };
        Self {
            length: total(&extents),
            md5,
            extents,
        }
    }
}

/// Cuts a large object into parts: each segment one part where S3 allows it. Segments smaller than `min_part` (at
/// least 5 MiB) are joined with those that follow, ones larger than 5 GiB are cut; where more than 10,000 parts
/// would come of it, more segments are joined.
///
/// An object without bytes has no parts: it is stored as an empty object, by a plain request.
///
/// # Errors
/// When the object does not fit into 10,000 parts.
pub fn plan(extents: &[Extent], min_part: u64) -> Result<Vec<PlannedPart>, PartsError> {
    let length = total(extents);
    let too_large = PartsError::TooLarge { length };
    if length > MAX_PART * MAX_PARTS as u64 {
        return Err(too_large);
    }
    let min_part = min_part.clamp(MIN_PART, MAX_PART);
    let mut parts = join(extents, min_part);
    if parts.len() > MAX_PARTS {
        // Every part but the last has this much or more.
        let enough = length.div_ceil(MAX_PARTS as u64 - 1);
        parts = join(extents, enough.clamp(min_part, MAX_PART));
    }
    if parts.len() > MAX_PARTS {
        return Err(too_large);
    }
    Ok(parts)
}

/// Every part but the last has at least `min` bytes, and none more than [`MAX_PART`].
fn join(extents: &[Extent], min: u64) -> Vec<PlannedPart> {
    let mut parts = Vec::new();
    let (mut open, mut length) = (Vec::new(), 0);
    for extent in extents {
        let mut first = 0;
        while first < extent.length() {
            let taken = (extent.length() - first).min(MAX_PART - length);
            open.push(extent.slice(first, taken));
            first += taken;
            length += taken;
            if length >= min {
                parts.push(PlannedPart::new(std::mem::take(&mut open)));
                length = 0;
            }
        }
    }
    if !open.is_empty() {
        parts.push(PlannedPart::new(open));
    }
    parts
}

fn total(extents: &[Extent]) -> u64 {
    extents
        .iter()
        .fold(0, |length: u64, extent| length.saturating_add(extent.length()))
}

/// The ETag that the remote will give to an upload of these parts, `md5(concatenated md5s)-N`; for no parts that of
/// an empty object. `None` where the md5 of a part is not known beforehand.
#[must_use]
pub fn expected_etag(parts: &[PlannedPart]) -> Option<String> {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part.md5?);
    }
    let digest = hex::encode(md5.finalize());
    Some(match parts.len() {
        0 => digest,
        count => format!("{digest}-{count}"),
    })
}

/// The lengths of the parts of a plain object over 5 GiB: all equal but the last. Up to 5 GiB it is one. (Of an object
/// that does not fit into 10,000 parts of 5 GiB the parts are larger than S3 takes.)
#[must_use]
pub fn plain_parts(size: u64) -> Vec<u64> {
    if size <= MAX_PART {
        return vec![size];
    }
    let part = size.div_ceil(MAX_PARTS as u64).max(PLAIN_PART);
    let mut parts = Vec::new();
    let mut rest = size;
    while rest > 0 {
        parts.push(rest.min(part));
        rest -= rest.min(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const MD5: &str = "5d41402abc4b2a76b9719d911017c592";

    fn extent(length: u64) -> Extent {
        Extent::Segment(SegmentExtent {
            container: "c".into(),
            object: "o".into(),
            etag: Some(MD5.into()),
            first: 0,
            length,
            whole: true,
        })
    }

    fn lengths(extents: &[u64], min_part: u64) -> Vec<u64> {
        let extents: Vec<_> = extents.iter().copied().map(extent).collect();
        let parts = plan(&extents, min_part).unwrap();
        parts.iter().map(|part| part.length).collect()
    }

    #[test]
    fn segments_that_s3_takes_stay_parts_of_their_own() {
        let sizes = [5 * MIB, 5 * GIB, 7 * MIB, 1];
        assert_eq!(lengths(&sizes, 0), sizes);
        let parts = plan(&sizes.map(extent), 0).unwrap();
        // printf '%s' $(printf 5d41402abc4b2a76b9719d911017c592%.0s {1..4}) | xxd -r -p | md5sum
        assert_eq!(
            expected_etag(&parts).unwrap(),
            "9eb8bba43a07a91295b2a147f7c7064c-4"
        );
    }

    #[test]
    fn small_segments_are_joined_until_they_are_large_enough() {
        assert_eq!(lengths(&[2 * MIB; 7], 0), [6 * MIB, 6 * MIB, 2 * MIB]);
        assert_eq!(lengths(&[MIB, 10 * MIB, MIB], 0), [11 * MIB, MIB]);
        assert_eq!(lengths(&[5 * MIB; 3], 8 * MIB), [10 * MIB, 5 * MIB]);
        let parts = plan(&[extent(MIB), extent(10 * MIB)], 0).unwrap();
        assert_eq!((parts[0].extents.len(), parts[0].md5), (2, None));
        assert_eq!(expected_etag(&parts), None);
    }

    #[test]
    fn a_segment_over_5_gib_is_cut() {
        let parts = plan(&[extent(11 * GIB + 1), extent(6 * MIB)], 0).unwrap();
        let found: Vec<_> = parts.iter().map(|part| part.length).collect();
        assert_eq!(found, [5 * GIB, 5 * GIB, GIB + 1, 6 * MIB]);
        assert_eq!(parts[0].md5, None);
        assert!(parts[3].md5.is_some());
        // What is left of it is too small for a part: it is joined with what follows.
        assert_eq!(lengths(&[5 * GIB + 1, 6 * MIB], 0), [5 * GIB, 6 * MIB + 1]);
        // A small one before a large one: no part may be over 5 GiB.
        assert_eq!(lengths(&[1, 5 * GIB, 1], 0), [5 * GIB, 2]);
    }

    #[test]
    fn more_segments_than_parts_are_joined_further() {
        // 10 MiB each would just be one part too many for the second.
        for (size, count) in [(6 * MIB, 25_000), (5 * MIB, 20_001)] {
            let parts = lengths(&vec![size; count], 0);
            assert_eq!(parts.iter().sum::<u64>(), size * count as u64);
            assert!(
                parts.len() <= MAX_PARTS && parts.len() > MAX_PARTS / 2,
                "{}",
                parts.len()
            );
        }
    }

    #[test]
    fn what_no_plan_can_hold_is_refused() {
        let extents = vec![extent(5 * GIB); MAX_PARTS];
        assert_eq!(plan(&extents, 0).unwrap().len(), MAX_PARTS);
        let mut more = extents;
        more.push(extent(1));
        let length = 5 * GIB * MAX_PARTS as u64 + 1;
        assert_eq!(plan(&more, 0), Err(PartsError::TooLarge { length }));
        assert!(plan(&[extent(u64::MAX), extent(u64::MAX)], 0).is_err());
    }

    #[test]
    fn a_large_object_without_bytes_is_stored_as_an_empty_one() {
        let parts = plan(&[], 0).unwrap();
        assert!(parts.is_empty());
        assert_eq!(
            expected_etag(&parts).as_deref(),
            Some("d41d8cd98f00b204e9800998ecf8427e")
        );
    }

    #[test]
    fn an_etag_that_is_no_md5_is_not_relied_on() {
        let Extent::Segment(mut segment) = extent(5 * MIB) else {
            panic!()
        };
        segment.etag = Some("5d41402abc4b2a76b9719d911017c592-1".into());
        assert_eq!(plan(&[Extent::Segment(segment)], 0).unwrap()[0].md5, None);
    }

    #[test]
    fn plain_objects_have_equal_parts() {
        assert_eq!(plain_parts(0), [0]);
        assert_eq!(plain_parts(5 * GIB), [5 * GIB]);
        let parts = plain_parts(5 * GIB + 1);
        assert_eq!((parts.len(), parts[0], parts[20]), (21, 256 * MIB, 1));
        assert_eq!(plain_parts(5 * GIB * 10_000), vec![5 * GIB; 10_000]);
    }

    proptest! {
        #[test]
        fn every_part_is_one_that_s3_takes_and_no_byte_is_lost(
            sizes in proptest::collection::vec(prop_oneof![1..8 * MIB, 1..12 * GIB, Just(5 * GIB)], 0..40),
            min_part in prop_oneof![Just(0), 0..64 * MIB, any::<u64>()],
        ) {
            let extents: Vec<_> = sizes.iter().copied().map(extent).collect();
            let parts = plan(&extents, min_part).unwrap();
            for (index, part) in parts.iter().enumerate() {
                prop_assert!(part.length <= MAX_PART && part.length > 0);
                prop_assert!(part.length >= MIN_PART || index + 1 == parts.len());
                prop_assert_eq!(part.length, total(&part.extents));
            }
            // Put together again, the pieces are the segments.
            let mut pieces = parts.iter().flat_map(|part| &part.extents);
            for size in sizes {
                let mut first = 0;
                while first < size {
                    let Some(Extent::Segment(piece)) = pieces.next() else { panic!() };
                    prop_assert_eq!(piece.first, first);
                    prop_assert_eq!(piece.whole, piece.length == size);
                    first += piece.length;
                }
                prop_assert_eq!(first, size);
            }
            prop_assert_eq!(pieces.next(), None);
        }

        #[test]
        fn plain_parts_add_up(size in 0..=MAX_PART * MAX_PARTS as u64) {
            let parts = plain_parts(size);
            prop_assert_eq!(parts.iter().sum::<u64>(), size);
            prop_assert!(parts.len() <= MAX_PARTS);
            prop_assert!(parts.iter().all(|part| *part <= MAX_PART));
            prop_assert!(parts.windows(2).all(|pair| pair[0] >= pair[1] && pair[0] == parts[0]));
        }

        #[test]
        fn no_size_makes_more_parts_than_s3_takes(size in any::<u64>()) {
            prop_assert!(plain_parts(size).len() <= MAX_PARTS);
        }
    }
}
