//! A set whose values have small, stable keys. Inserting and removing take constant time, and the slots of removed
//! values are reused.

/// Values by slot.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    values: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { values: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Adds a value and returns its slot.
    pub(crate) fn insert(&mut self, value: T) -> usize {
        if let Some(slot) = self.free.pop() {
            self.values[slot] = Some(value);
            slot
        } else {
            self.values.push(Some(value));
            self.values.len() - 1
        }
    }

    /// Removes and returns the value of a slot.
    pub(crate) fn remove(&mut self, slot: usize) -> Option<T> {
        let value = self.values.get_mut(slot)?.take();
        if value.is_some() {
            self.free.push(slot);
        }
        if self.is_empty() {
            // Releases the memory that a burst of streams needed.
            self.values = Vec::new();
            self.free = Vec::new();
        }
        value
    }

    /// The number of values.
    pub(crate) fn len(&self) -> usize {
        self.values.len() - self.free.len()
    }

    /// Whether the set is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

    #[test]
    fn removed_slots_are_reused() {
        let mut slots = Slots::default();
        let (a, b) = (slots.insert('a'), slots.insert('b'));
        assert_eq!(slots.remove(a), Some('a'));
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.insert('c'), a);
        assert_eq!((slots.len(), slots.iter().collect::<String>()), (2, "cb".to_owned()));
        assert_eq!((slots.remove(b), slots.remove(a)), (Some('b'), Some('c')));
        assert!(slots.is_empty() && slots.values.capacity() == 0);
    }
}
