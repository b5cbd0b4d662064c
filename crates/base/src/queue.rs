//! A first-in first-out queue that cannot grow past its number.

use std::collections::VecDeque;

/// What [`Bounded::push`] gives back when there is no room: the item itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

/// A queue of at most `max` items.
#[derive(Clone, Debug)]
pub struct Bounded<T> {
    items: VecDeque<T>,
    max: usize,
}

impl<T> Bounded<T> {
    /// An empty queue of at most `max` items.
    pub fn new(max: usize) -> Self {
        Bounded { items: VecDeque::new(), max }
    }

    /// Adds at the end, or hands the item back if the queue is full.
    pub fn push(&mut self, item: T) -> Result<(), Full<T>> {
        if self.items.len() >= self.max {
            return Err(Full(item));
        }
        self.items.push_back(item);
        Ok(())
    }

    /// Adds at the end and drops the oldest if there was no room; returns what was dropped.
    pub fn push_over(&mut self, item: T) -> Option<T> {
        let dropped = if self.items.len() >= self.max { self.items.pop_front() } else { None };
        if self.max > 0 {
            self.items.push_back(item);
        }
        dropped
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// The oldest, left where it is.
    pub fn front(&self) -> Option<&T> {
        self.items.front()
    }

    /// Removes every item for which `keep` is false, keeping the order of the rest.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.items.retain(keep);
    }

    /// The items, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.items.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many there can be.
    pub fn max(&self) -> usize {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_hands_the_item_back() {
        let mut q = Bounded::new(2);
        assert_eq!(q.push(1), Ok(()));
        assert_eq!(q.push(2), Ok(()));
        assert_eq!(q.push(3), Err(Full(3)));
        assert_eq!(q.push_over(3), Some(1));
        assert_eq!((q.pop(), q.pop(), q.pop()), (Some(2), Some(3), None));
    }
}
