//! What is kept for later, and what is dropped first: what was not used for longest.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex};

/// Values that are made once and shared, by their keys: compiled shaders by their texts, say. One that somebody holds
/// stays; of the others, the idle ones, so many at the most.
pub struct Slots<K, T> {
    slots: HashMap<K, Slot<T>>,
    /// How often any was asked for.
    uses: u64,
    most_idle: usize,
}

struct Slot<T> {
    /// A lock of its own, so that threads make different values at the same time, but each once.
    value: Arc<Mutex<Option<Arc<T>>>>,
    last_use: u64,
}

impl<K: Eq + Hash, T> Slots<K, T> {
    pub fn new(most_idle: usize) -> Self {
        Self { slots: HashMap::new(), uses: 0, most_idle }
    }

    /// The place of a value, empty if it is to be made.
    pub fn slot(&mut self, key: K) -> Arc<Mutex<Option<Arc<T>>>> {
        self.uses += 1;
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.last_use = self.uses;
            return slot.value.clone();
        }
        self.drop_idle();
        let value = Arc::default();
        self.slots.insert(key, Slot { value: Arc::clone(&value), last_use: self.uses });
        value
    }

    fn drop_idle(&mut self) {
        if self.slots.len() < self.most_idle {
            return;
        }
        let mut idle: Vec<u64> = self.slots.values().filter(|slot| slot.is_idle()).map(|slot| slot.last_use).collect();
        if idle.len() < self.most_idle {
            return;
        }
        // One place is for what comes next.
        idle.sort_unstable();
        let last_dropped = idle[idle.len() - self.most_idle];
        self.slots.retain(|_, slot| slot.last_use > last_dropped || !slot.is_idle());
    }
}

impl<T> Slot<T> {
    /// Whether nobody compiles it or holds it.
    fn is_idle(&self) -> bool {
        let unused = |value: &Option<Arc<T>>| value.as_ref().is_none_or(|value| Arc::strong_count(value) == 1);
        Arc::strong_count(&self.value) == 1 && self.value.try_lock().is_ok_and(|value| unused(&value))
    }
}

/// Finds an entry of a queue, and makes it the last to be dropped.
pub fn find<T>(queue: &mut VecDeque<T>, wanted: impl FnMut(&T) -> bool) -> Option<&T> {
    let at = queue.iter().position(wanted)?;
    let entry = queue.remove(at)?;
    queue.push_back(entry);
    queue.back()
}

/// Adds an entry to a queue of so many at the most.
pub fn push<T>(queue: &mut VecDeque<T>, entry: T, most: usize) {
    if queue.len() >= most {
        queue.pop_front();
    }
    queue.push_back(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for a shader and says whether it was compiled only now.
    fn compile(shaders: &mut Slots<&'static str, u32>, wgsl: &'static str) -> (Arc<u32>, bool) {
        let slot = shaders.slot(wgsl);
        let mut value = slot.lock().unwrap();
        let is_new = value.is_none();
        (value.get_or_insert_with(Arc::default).clone(), is_new)
    }

    #[test]
    fn shaders_that_nobody_uses_are_dropped_the_oldest_first() {
        let mut shaders = Slots::new(2);
        let (held, _) = compile(&mut shaders, "held");
        for name in ["a", "b", "a", "c"] {
            compile(&mut shaders, name);
        }
        // Of a, b and c two are kept, and b was used before a.
        assert!(!compile(&mut shaders, "a").1 && !compile(&mut shaders, "c").1);
        assert!(compile(&mut shaders, "b").1);
        assert!(!compile(&mut shaders, "held").1);
        drop(held);
        compile(&mut shaders, "d");
        assert_eq!(shaders.slots.len(), 2, "as many idle ones as may be");
    }

    #[test]
    fn a_queue_drops_what_was_not_used_for_longest() {
        let mut queue = VecDeque::new();
        for entry in [1, 2, 3] {
            push(&mut queue, entry, 3);
        }
        assert_eq!(find(&mut queue, |&entry| entry == 1), Some(&1));
        push(&mut queue, 4, 3);
        assert_eq!(queue, [3, 1, 4]);
        assert_eq!(find(&mut queue, |&entry| entry == 2), None);
    }
}
