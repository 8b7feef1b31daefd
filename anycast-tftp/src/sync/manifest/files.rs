//! The files that there are entries of, by name and by when they changed last.

use std::ops::Bound;

use super::slot::Slot;
use crate::store::FileName;
use crate::sync::sorted::Sorted;

/// As many as there are numbers for.
pub(super) const MAX_FILES: usize = u32::MAX as usize;

#[derive(Debug, Default)]
pub(super) struct Files {
    /// By number. None is ever removed, so a number stays the same file's.
    rows: Vec<Row>,
    by_name: Sorted,
    by_seq: Sorted,
}

#[derive(Debug)]
struct Row {
    name: FileName,
    slot: Slot,
}

fn row(rows: &[Row], number: u32) -> Option<&Row> {
    rows.get(usize::try_from(number).ok()?)
}

impl Files {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn number(&self, name: &FileName) -> Option<u32> {
        let is_before = |other: u32| row(&self.rows, other).is_some_and(|row| row.name < *name);
        let number = self.by_name.first(is_before)?;
        (row(&self.rows, number)?.name == *name).then_some(number)
    }

    pub(super) fn numbered(&self, number: u32) -> Option<(&FileName, &Slot)> {
        row(&self.rows, number).map(|row| (&row.name, &row.slot))
    }

    pub(super) fn get(&self, name: &FileName) -> Option<&Slot> {
        row(&self.rows, self.number(name)?).map(|row| &row.slot)
    }

    /// In the place of what there is. The change is later than all others.
    pub(super) fn insert(&mut self, name: &FileName, slot: Slot) {
        let number = match self.number(name) {
            Some(number) => number,
            None => {
                let Ok(number) = u32::try_from(self.rows.len()) else {
                    return; // more than MAX_FILES
                };
                let rows = &self.rows;
                let is_before = |other: u32| row(rows, other).is_some_and(|row| row.name < *name);
                self.by_name.insert(number, is_before);
                let name = name.clone();
                self.rows.push(Row { name, slot });
                self.by_seq.insert(number, |_| true);
                return;
            }
        };
        let rows = &self.rows;
        let seq = |number: u32| row(rows, number).map_or(0, |row| row.slot.seq);
        let before = seq(number);
        self.by_seq.remove(number, |other| seq(other) < before);
        let at = usize::try_from(number).ok();
        if let Some(row) = at.and_then(|at| self.rows.get_mut(at)) {
            row.slot = slot;
        }
        self.by_seq.insert(number, |_| true);
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &FileName> {
        self.from(Bound::Unbounded).map(|(name, _)| name)
    }

    /// In order of name.
    pub(super) fn from(&self, from: Bound<&FileName>) -> impl Iterator<Item = (&FileName, &Slot)> {
        let is_before = |number: u32| {
            row(&self.rows, number).is_some_and(|row| match from {
                Bound::Unbounded => false,
                Bound::Included(from) => row.name < *from,
                Bound::Excluded(from) => row.name <= *from,
            })
        };
        let numbers = self.by_name.from(&is_before);
        numbers.filter_map(|number| self.numbered(number))
    }

    /// Those whose last change has a greater number, in order of these.
    pub(super) fn changed_since(&self, since: u64) -> impl Iterator<Item = (&FileName, &Slot)> {
        let is_before =
            |number: u32| row(&self.rows, number).is_some_and(|row| row.slot.seq <= since);
        let numbers = self.by_seq.from(&is_before);
        numbers.filter_map(|number| self.numbered(number))
    }
}
