//! What was seen of one kind of objects, kept in step with its watches.

use std::collections::{BTreeMap, BTreeSet};

/// Namespace (empty where there is none) and name.
pub type Key = (String, String);

/// The objects that one watch covers: one namespace, or all.
pub type Scope = Option<String>;

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum Change<V> {
    /// The object is there, like this.
    Put(Key, V),
    /// The object is gone.
    Gone(Key),
    /// Everything in scope is listed anew from here.
    Restart,
    /// An object of the list.
    Listed(Key, V),
    /// The list is complete: what it did not name is gone.
    Complete,
    /// The API server lists nothing of this scope for us, by its own word: what is in it is not known.
    Refused,
}

/// The objects of one kind, whichever watches they come from.
#[derive(Debug)]
pub struct Table<V> {
    rows: BTreeMap<Key, V>,
    /// Lists under way, and what they named so far.
    lists: BTreeMap<Scope, BTreeSet<Key>>,
    /// Watches that have not completed their first list.
    awaited: BTreeSet<Scope>,
    /// Watches whose last list was refused.
    refused: BTreeSet<Scope>,
}

impl<V> Table<V> {
    /// Nothing seen yet, and these watches to wait for.
    #[must_use]
    pub fn new(scopes: &[Scope]) -> Self {
        Self {
            rows: BTreeMap::new(),
            lists: BTreeMap::new(),
            awaited: scopes.iter().cloned().collect(),
            refused: BTreeSet::new(),
        }
    }

    /// Whether the last list of a scope was refused.
    #[must_use]
    pub fn is_refused(&self, scope: &Scope) -> bool {
        self.refused.contains(scope)
    }

    /// Whether every watch has completed its first list, or is not waited for.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Takes one event of a watch. `put` stores a new value beside the old one and says whether that matters.
    /// Returns whether anything changed that matters.
    pub fn take(
        &mut self,
        scope: &Scope,
        change: Change<V>,
        put: impl FnOnce(Option<V>, V) -> (V, bool),
    ) -> bool {
        match change {
            Change::Put(key, value) => self.put(key, value, put),
            Change::Listed(key, value) => {
                if let Some(list) = self.lists.get_mut(scope) {
                    list.insert(key.clone());
                }
                self.put(key, value, put)
            }
            Change::Gone(key) => self.rows.remove(&key).is_some(),
            Change::Restart => {
                self.lists.insert(scope.clone(), BTreeSet::new());
                false
            }
            Change::Complete => {
                let listed = self.lists.remove(scope).unwrap_or_default();
                let before = self.rows.len();
                self.rows.retain(|key, _| {
                    let covered = scope.as_ref().is_none_or(|namespace| *namespace == key.0);
                    !covered || listed.contains(key)
                });
                let (awaited, refused) = (self.awaited.remove(scope), self.refused.remove(scope));
                awaited || refused || self.rows.len() != before
            }
            // What was seen of it before stays, and nobody waits for more.
            Change::Refused => self.awaited.remove(scope) | self.refused.insert(scope.clone()),
        }
    }

    /// The namespace is not there, whatever its own watch says or fails to say: nothing is in it, and nobody waits for it.
    /// Returns whether anything changed.
    pub fn void(&mut self, namespace: &str) -> bool {
        let before = self.rows.len();
        self.rows.retain(|key, _| key.0 != namespace);
        self.awaited.remove(&Some(namespace.to_owned())) || self.rows.len() != before
    }

    fn put(&mut self, key: Key, value: V, put: impl FnOnce(Option<V>, V) -> (V, bool)) -> bool {
        let (value, matters) = put(self.rows.remove(&key), value);
        self.rows.insert(key, value);
        matters
    }

    /// One object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&V> {
        self.rows.get(key)
    }

    /// All objects, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Key, &mut V)> {
        self.rows.iter_mut()
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        self.rows.iter()
    }
}

/// For [`Table::take`]: matters if it is another value.
#[allow(clippy::needless_pass_by_value, reason = "what Table::take calls")]
pub fn if_different<V: PartialEq>(old: Option<V>, new: V) -> (V, bool) {
    let matters = old.as_ref() != Some(&new);
    (new, matters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> Key {
        (namespace.to_owned(), name.to_owned())
    }

    fn names(table: &Table<u8>) -> Vec<&str> {
        table.iter().map(|((_, name), _)| name.as_str()).collect()
    }

    #[test]
    fn what_a_new_list_does_not_name_is_gone_in_its_own_namespace_alone() {
        let (a, b) = (Some("a".to_owned()), Some("b".to_owned()));
        let mut table = Table::new(&[a.clone(), b.clone()]);
        for (scope, name) in [(&a, "one"), (&a, "two"), (&b, "three")] {
            let namespace = scope.clone().unwrap();
            table.take(scope, Change::Put(key(&namespace, name), 1), if_different);
        }
        table.take(&a, Change::Restart, if_different);
        table.take(&a, Change::Listed(key("a", "two"), 1), if_different);
        assert_eq!(
            names(&table),
            ["one", "two", "three"],
            "until the list is complete"
        );
        assert!(table.take(&a, Change::Complete, if_different));
        assert_eq!(names(&table), ["two", "three"]);
        assert!(!table.is_complete(), "b was not listed yet");
        table.take(&b, Change::Restart, if_different);
        table.take(&b, Change::Complete, if_different);
        assert!(table.is_complete());
        assert_eq!(names(&table), ["two"]);
    }

    #[test]
    fn a_namespace_that_is_not_there_is_empty_and_not_waited_for() {
        let (a, b) = (Some("a".to_owned()), Some("b".to_owned()));
        let mut table = Table::new(&[a.clone(), b.clone()]);
        table.take(&b, Change::Complete, if_different);
        table.take(&b, Change::Put(key("b", "one"), 1), if_different);
        assert!(!table.is_complete(), "who knows what is in a");
        assert!(table.void("a"));
        assert!(table.is_complete());
        assert!(table.void("b"));
        assert_eq!(names(&table), [] as [&str; 0]);
        assert!(!table.void("b"), "nothing new");
        // It is made again.
        table.take(&b, Change::Restart, if_different);
        table.take(&b, Change::Listed(key("b", "two"), 1), if_different);
        table.take(&b, Change::Complete, if_different);
        assert_eq!(names(&table), ["two"]);
    }

    #[test]
    fn what_is_refused_is_not_waited_for_and_what_was_seen_of_it_stays() {
        let a = Some("a".to_owned());
        let mut table = Table::new(std::slice::from_ref(&a));
        table.take(&a, Change::Restart, if_different);
        assert!(table.take(&a, Change::Refused, if_different));
        assert!(table.is_complete() && table.is_refused(&a));
        assert!(!table.take(&a, Change::Refused, if_different), "nothing new");
        table.take(&a, Change::Restart, if_different);
        table.take(&a, Change::Listed(key("a", "one"), 1), if_different);
        assert!(table.take(&a, Change::Complete, if_different));
        assert!(!table.is_refused(&a));
        table.take(&a, Change::Restart, if_different);
        assert!(table.take(&a, Change::Refused, if_different));
        assert_eq!(names(&table), ["one"]);
        // An empty list is an answer, too.
        table.take(&a, Change::Restart, if_different);
        assert!(table.take(&a, Change::Complete, if_different));
        assert_eq!(names(&table), [] as [&str; 0]);
    }

    #[test]
    fn an_event_that_changes_nothing_does_not_matter() {
        let mut table = Table::new(&[None]);
        assert!(table.take(&None, Change::Put(key("a", "one"), 1), if_different));
        assert!(!table.take(&None, Change::Put(key("a", "one"), 1), if_different));
        assert!(table.take(&None, Change::Put(key("a", "one"), 2), if_different));
        assert!(table.take(&None, Change::Gone(key("a", "one")), if_different));
        assert!(!table.take(&None, Change::Gone(key("a", "one")), if_different));
    }
}
