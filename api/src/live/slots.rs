//! A set with small stable keys: joining and leaving cost the same however many are in it, and the memory of those
//! who left is used again.

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
    /// Adds a value and says which slot it has.
    pub(crate) fn insert(&mut self, value: T) -> usize {
        if let Some(slot) = self.free.pop() {
            self.values[slot] = Some(value);
            slot
        } else {
            self.values.push(Some(value));
            self.values.len() - 1
        }
    }

    /// Takes the value out of its slot.
    pub(crate) fn remove(&mut self, slot: usize) -> Option<T> {
        let value = self.values.get_mut(slot)?.take();
        if value.is_some() {
            self.free.push(slot);
        }
        if self.is_empty() {
            // After a storm of streams the room they took is given back.
            self.values = Vec::new();
            self.free = Vec::new();
        }
        value
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.values.len() - self.free.len()
    }

    /// Whether there is none.
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
    fn slots_are_used_again() {
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
