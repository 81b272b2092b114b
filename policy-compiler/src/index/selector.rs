//! A label selector over the numbers of a [`LabelIndex`]: [`IndexedSelector`] tests one object's labels, or finds all
//! objects at once.

use roaring::RoaringBitmap;

use super::labels::{KeyId, LabelId, LabelIndex};
use crate::model::{Requirement, Selector};

/// A selector. It holds its labels and keys in the index until [`Self::release`].
#[derive(Debug)]
pub(crate) struct IndexedSelector {
    tests: Box<[Test]>,
}

#[derive(Debug)]
enum Test {
    OneOf(Box<[LabelId]>),
    NoneOf(Box<[LabelId]>),
    Has(KeyId),
    Lacks(KeyId),
}

/// What an object must have to be worth a test at all.
pub(crate) enum Anchor<'a> {
    OneOf(&'a [LabelId]),
    Has(KeyId),
    Nothing,
}

impl IndexedSelector {
    pub(crate) fn new(selector: &Selector, index: &mut LabelIndex) -> Self {
        let test = |requirement: &Requirement| match requirement {
            Requirement::In(key, values) => Test::OneOf(values.iter().map(|value| index.hold(key, value)).collect()),
            Requirement::NotIn(key, values) => {
                Test::NoneOf(values.iter().map(|value| index.hold(key, value)).collect())
            }
            Requirement::Exists(key) => Test::Has(index.hold_key(key)),
            Requirement::DoesNotExist(key) => Test::Lacks(index.hold_key(key)),
        };
        Self { tests: selector.requirements.iter().map(test).collect() }
    }

    pub(crate) fn release(self, index: &mut LabelIndex) {
        for test in self.tests {
            match test {
                Test::OneOf(labels) | Test::NoneOf(labels) => labels.into_iter().for_each(|label| index.release(label)),
                Test::Has(key) | Test::Lacks(key) => index.release_key(key),
            }
        }
    }

    pub(crate) fn matches(&self, labels: &[LabelId], index: &LabelIndex) -> bool {
        self.tests.iter().all(|test| match test {
            Test::OneOf(wanted) => wanted.iter().any(|label| labels.contains(label)),
            Test::NoneOf(unwanted) => !unwanted.iter().any(|label| labels.contains(label)),
            Test::Has(key) => labels.iter().any(|label| index.key_of(*label) == *key),
            Test::Lacks(key) => !labels.iter().any(|label| index.key_of(*label) == *key),
        })
    }

    pub(crate) fn anchor(&self) -> Anchor<'_> {
        let fewest = |test: &&Test| if let Test::OneOf(labels) = test { labels.len() } else { usize::MAX };
        match self.tests.iter().filter(|test| matches!(test, Test::OneOf(_) | Test::Has(_))).min_by_key(fewest) {
            Some(Test::OneOf(labels)) => Anchor::OneOf(labels),
            Some(Test::Has(key)) => Anchor::Has(*key),
            _ => Anchor::Nothing,
        }
    }

    /// At most how many objects match; `None` if no test says.
    pub(crate) fn at_most(&self, index: &LabelIndex) -> Option<u64> {
        let count = |test: &Test| match test {
            Test::OneOf(labels) => Some(labels.iter().map(|label| index.members(*label).len()).sum()),
            Test::Has(key) => Some(index.members_of_key(*key).len()),
            Test::NoneOf(_) | Test::Lacks(_) => None,
        };
        self.tests.iter().filter_map(count).min()
    }

    /// All objects that match, out of `universe`, which is only asked for if no test narrows the choice.
    pub(crate) fn find(&self, index: &LabelIndex, universe: impl FnOnce() -> RoaringBitmap) -> RoaringBitmap {
        let mut found: Option<RoaringBitmap> = None;
        let mut narrow = |members: &RoaringBitmap| match &mut found {
            Some(found) => *found &= members,
            None => found = Some(members.clone()),
        };
        for test in &self.tests {
            match test {
                Test::OneOf(labels) => match &**labels {
                    [label] => narrow(index.members(*label)),
                    labels => {
                        narrow(&labels.iter().fold(RoaringBitmap::new(), |all, label| all | index.members(*label)));
                    }
                },
                Test::Has(key) => narrow(index.members_of_key(*key)),
                Test::NoneOf(_) | Test::Lacks(_) => {}
            }
        }
        let mut found = found.unwrap_or_else(universe);
        for test in &self.tests {
            match test {
                Test::NoneOf(labels) => labels.iter().for_each(|label| found -= index.members(*label)),
                Test::Lacks(key) => found -= index.members_of_key(*key),
                Test::OneOf(_) | Test::Has(_) => {}
            }
        }
        found
    }
}
