//! Rows in an order, at about five bytes a row: for indexes of which a map would hold copies of
//! what the rows have themselves. Pure.

/// Most numbers in one piece: what an insertion moves.
const PIECE: usize = 512;

/// Numbers of rows that are kept elsewhere, in an order that only whoever has the rows knows.
///
/// `is_before` says of a row whether it comes before the place that is meant. What it says must
/// not change for a row that is in here: such a row is taken out first and put in anew.
#[derive(Debug, Default)]
pub(in crate::sync) struct Sorted {
    /// None of them is empty.
    pieces: Vec<Vec<u32>>,
    len: usize,
}

impl Sorted {
    pub(in crate::sync) fn len(&self) -> usize {
        self.len
    }

    pub(in crate::sync) fn iter(&self) -> impl Iterator<Item = u32> {
        self.pieces.iter().flatten().copied()
    }

    /// The one that is at a place.
    pub(in crate::sync) fn first(&self, is_before: impl Fn(u32) -> bool) -> Option<u32> {
        let (piece, at) = self.place(is_before);
        self.pieces.get(piece)?.get(at).copied()
    }

    /// Those from a place on.
    pub(in crate::sync) fn from<'a>(
        &'a self,
        is_before: &dyn Fn(u32) -> bool,
    ) -> impl Iterator<Item = u32> + use<'a> {
        let (piece, at) = self.place(is_before);
        let pieces = self.pieces.get(piece..).unwrap_or_default();
        pieces.iter().flatten().skip(at).copied()
    }

    pub(in crate::sync) fn insert(&mut self, number: u32, is_before: impl Fn(u32) -> bool) {
        self.len += 1;
        let (mut piece, mut at) = self.place(is_before);
        if piece == self.pieces.len() {
            // At the end, where pieces are filled: what comes in order takes least.
            match self.pieces.last_mut().filter(|last| last.len() < PIECE) {
                Some(last) => last.push(number),
                None => self.pieces.push(vec![number]),
            }
            return;
        }
        if let Some(full) = self.pieces.get_mut(piece).filter(|p| p.len() >= PIECE) {
            let upper = full.split_off(PIECE / 2);
            self.pieces.insert(piece + 1, upper);
            if at > PIECE / 2 {
                (piece, at) = (piece + 1, at - PIECE / 2);
            }
        }
        if let Some(numbers) = self.pieces.get_mut(piece) {
            numbers.insert(at, number);
        }
    }

    /// Whether it was at that place.
    pub(in crate::sync) fn remove(&mut self, number: u32, is_before: impl Fn(u32) -> bool) -> bool {
        let (piece, at) = self.place(is_before);
        let Some(numbers) = self.pieces.get_mut(piece) else {
            return false;
        };
        if numbers.get(at) != Some(&number) {
            return false;
        }
        numbers.remove(at);
        self.len -= 1;
        let rest = numbers.len();
        let next = self.pieces.get(piece + 1).map_or(PIECE, Vec::len);
        if rest == 0 {
            self.pieces.remove(piece);
        } else if rest + next <= PIECE / 2 {
            let next = self.pieces.remove(piece + 1);
            self.pieces
                .iter_mut()
                .skip(piece)
                .take(1)
                .for_each(|p| p.extend(&next));
        }
        true
    }

    /// The row that is at that place has another number from now on.
    pub(in crate::sync) fn renumber(
        &mut self,
        from: u32,
        to: u32,
        is_before: impl Fn(u32) -> bool,
    ) {
        let (piece, at) = self.place(is_before);
        let numbers = self.pieces.get_mut(piece);
        let number = numbers.and_then(|numbers| numbers.get_mut(at));
        if let Some(number) = number.filter(|number| **number == from) {
            *number = to;
        }
    }

    /// What grew in no order is in pieces that are not full; now they are.
    pub(in crate::sync) fn pack(&mut self) {
        let all: Vec<u32> = self.iter().collect();
        self.pieces.clear(); // so that there never are both
        self.pieces = all.chunks(PIECE).map(<[u32]>::to_vec).collect();
    }

    fn place(&self, is_before: impl Fn(u32) -> bool) -> (usize, usize) {
        let ends_before = |piece: &Vec<u32>| piece.last().is_some_and(|last| is_before(*last));
        let piece = self.pieces.partition_point(ends_before);
        let numbers = self.pieces.get(piece);
        let at = numbers.map_or(0, |numbers| numbers.partition_point(|one| is_before(*one)));
        (piece, at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Numbers stand for rows; the order is that of their bits read backwards.
    fn check(steps: &[(bool, u32)]) -> Result<(), TestCaseError> {
        let mut sorted = Sorted::default();
        let mut model = BTreeSet::new();
        for (is_insert, number) in steps {
            let key = number.reverse_bits();
            let is_before = |other: u32| other.reverse_bits() < key;
            if !*is_insert {
                prop_assert_eq!(sorted.remove(*number, is_before), model.remove(&key));
            } else if model.insert(key) {
                sorted.insert(*number, is_before);
            }
            prop_assert_eq!(sorted.len(), model.len());
            prop_assert_eq!(sorted.first(is_before), sorted.from(&is_before).next());
            prop_assert_eq!(
                sorted.first(is_before),
                model.range(key..).next().map(|key| key.reverse_bits())
            );
        }
        let expected: Vec<_> = model.iter().map(|key| key.reverse_bits()).collect();
        prop_assert_eq!(sorted.iter().collect::<Vec<_>>(), expected.clone());
        prop_assert!(
            sorted
                .pieces
                .iter()
                .all(|piece| !piece.is_empty() && piece.len() <= PIECE)
        );
        sorted.pack();
        prop_assert_eq!(sorted.iter().collect::<Vec<_>>(), expected);
        Ok(())
    }

    proptest! {
        #[test]
        fn it_is_as_a_set_that_is_sorted(steps in vec((prop::bool::weighted(0.6), 0_u32..1500), 0..8000)) {
            check(&steps)?;
        }

        #[test]
        fn few_are_left_of_many(steps in vec((prop::bool::weighted(0.1), 0_u32..3000), 0..6000)) {
            let all = (0..3000).map(|number| (true, number)).chain(steps);
            check(&all.collect::<Vec<_>>())?;
        }
    }

    #[test]
    fn what_comes_in_order_fills_its_pieces() {
        let mut sorted = Sorted::default();
        for number in 0..10_000 {
            sorted.insert(number, |other| other < number);
        }
        assert_eq!(sorted.pieces.len(), 10_000_usize.div_ceil(PIECE));
        sorted.renumber(77, 10_001, |other| other < 77);
        assert_eq!(sorted.iter().nth(77), Some(10_001));
    }
}
