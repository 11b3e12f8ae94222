//! LRU caches.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use futures_intrusive::sync::ManualResetEvent;

#[cfg(not(target_arch = "wasm32"))]
use crate::runtime::block::block_on;
use crate::runtime::device::lock;

/// Values that are made once and shared, by their keys: compiled shaders by their texts, say. A value that is held
/// elsewhere stays. Of the others, the idle ones, `most_idle` stay.
pub struct Slots<K, T> {
    slots: HashMap<K, Slot<T>>,
    /// How often any was asked for.
    uses: u64,
    most_idle: usize,
}

/// The place of a value, which one task at a time makes. Tasks make different values at the same time.
pub struct Place<T>(Mutex<State<T>>);

enum State<T> {
    Empty,
    /// A task makes the value. The event comes when it has ended, with a value or without.
    Making(Arc<ManualResetEvent>),
    Made(Arc<T>),
}

struct Slot<T> {
    place: Arc<Place<T>>,
    last_use: u64,
}

impl<K: Eq + Hash, T> Slots<K, T> {
    pub fn new(most_idle: usize) -> Self {
        Self { slots: HashMap::new(), uses: 0, most_idle }
    }

    /// The place of a value, for [`get_or_make`].
    pub fn place(&mut self, key: K) -> Arc<Place<T>> {
        self.uses += 1;
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.last_use = self.uses;
            return slot.place.clone();
        }
        // One is for what comes next.
        self.drop_idle(self.most_idle.saturating_sub(1));
        let place = Arc::new(Place::default());
        self.slots.insert(key, Slot { place: place.clone(), last_use: self.uses });
        place
    }

    /// The values, but for those in the making.
    pub fn values(&self) -> impl Iterator<Item = Arc<T>> {
        self.slots.values().filter_map(|slot| slot.place.value())
    }

    /// Drops idle values until there are no more than `most`, and places whose value could not be made.
    pub fn drop_idle(&mut self, most: usize) {
        self.slots.retain(|_, slot| !slot.is_idle(|_| false));
        let idle = self.slots.values().filter(|slot| slot.is_idle(is_alone));
        let mut idle: Vec<u64> = idle.map(|slot| slot.last_use).collect();
        idle.sort_unstable();
        if let Some(last_dropped) = idle.len().checked_sub(most + 1).map(|last| idle[last]) {
            self.slots.retain(|_, slot| slot.last_use > last_dropped || !slot.is_idle(is_alone));
        }
    }

    /// Drops the idle value that was not used for longest. Whether there was one.
    pub fn drop_oldest(&mut self) -> bool {
        let idle = self.slots.values().filter(|slot| slot.is_idle(is_alone)).count();
        self.drop_idle(idle.saturating_sub(1));
        idle > 0
    }

    /// Drops all, also those that are held.
    pub fn clear(&mut self) {
        self.slots.clear();
    }
}

impl<T> Default for Place<T> {
    /// A place without a value.
    fn default() -> Self {
        Self(Mutex::new(State::Empty))
    }
}

impl<T> Place<T> {
    /// The value, if it is made.
    fn value(&self) -> Option<Arc<T>> {
        match &*lock(&self.0) {
            State::Made(value) => Some(value.clone()),
            State::Empty | State::Making(_) => None,
        }
    }

    /// Replaces the value.
    pub fn set(&self, value: T) {
        *lock(&self.0) = State::Made(Arc::new(value));
    }
}

/// The value of a place, made now if there is none. Other tasks that ask for it wait until the task that makes it ends,
/// and one of them makes it if that one failed.
///
/// On native devices the value is made without a return to the executor: a future that is no longer polled keeps no
/// other task waiting. For the same reason all who wait are woken, not only the first.
pub async fn get_or_make<T, E>(place: &Place<T>, make: impl Future<Output = Result<T, E>>) -> Result<Arc<T>, E> {
    let making = loop {
        let ended = match &mut *lock(&place.0) {
            State::Made(value) => return Ok(value.clone()),
            State::Making(ended) => ended.clone(),
            state => {
                let ended = Arc::new(ManualResetEvent::new(false));
                *state = State::Making(ended.clone());
                break Making { place, ended };
            }
        };
        ended.wait().await;
    };
    #[cfg(not(target_arch = "wasm32"))]
    let value = block_on(make);
    #[cfg(target_arch = "wasm32")]
    let value = make.await;
    let value = Arc::new(value?);
    making.end(State::Made(value.clone()));
    Ok(value)
}

/// A value in the making. Dropped, it leaves its place empty.
struct Making<'a, T> {
    place: &'a Place<T>,
    ended: Arc<ManualResetEvent>,
}

impl<T> Making<'_, T> {
    /// Ends it, unless the value was set meanwhile.
    fn end(&self, state: State<T>) {
        let mut now = lock(&self.place.0);
        if matches!(&*now, State::Making(ended) if Arc::ptr_eq(ended, &self.ended)) {
            *now = state;
        }
        drop(now);
        self.ended.set();
    }
}

impl<T> Drop for Making<'_, T> {
    fn drop(&mut self) {
        self.end(State::Empty);
    }
}

fn is_alone<T>(value: &Arc<T>) -> bool {
    Arc::strong_count(value) == 1
}

impl<T> Slot<T> {
    /// Whether no task makes the value, or waits for it, and its value, if there is one, satisfies `value`.
    fn is_idle(&self, value: impl Fn(&Arc<T>) -> bool) -> bool {
        Arc::strong_count(&self.place) == 1
            && match &*lock(&self.place.0) {
                State::Empty => true,
                State::Making(_) => false,
                State::Made(made) => value(made),
            }
    }
}

/// Finds an entry of a queue, and makes it the last to be dropped.
pub fn find<T>(queue: &mut VecDeque<T>, wanted: impl FnMut(&T) -> bool) -> Option<&T> {
    let at = queue.iter().position(wanted)?;
    let entry = queue.remove(at)?;
    queue.push_back(entry);
    queue.back()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block::block_on;

    /// Asks for a shader and says whether it was compiled only now.
    fn compile(shaders: &mut Slots<&'static str, u32>, wgsl: &'static str) -> (Arc<u32>, bool) {
        let mut is_new = false;
        let make = async {
            is_new = true;
            Ok::<_, ()>(0)
        };
        let shader = block_on(get_or_make(&shaders.place(wgsl), make)).unwrap();
        (shader, is_new)
    }

    #[test]
    fn unused_shaders_are_dropped_oldest_first() {
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
        assert!(shaders.drop_oldest());
        assert!(!compile(&mut shaders, "d").1, "the older one was dropped");
        assert!(shaders.drop_oldest() && !shaders.drop_oldest());
        assert_eq!(shaders.values().count(), 0);
    }

    #[test]
    fn what_cannot_be_made_takes_no_place() {
        let mut shaders = Slots::new(2);
        compile(&mut shaders, "a");
        for name in ["b", "c", "d"] {
            assert_eq!(block_on(get_or_make(&shaders.place(name), async { Err("no") })), Err("no"));
        }
        assert!(!compile(&mut shaders, "a").1, "others were dropped for it");
        // What is in the making stays, though it is not there yet.
        let place = shaders.place("e");
        shaders.drop_idle(0);
        block_on(get_or_make(&place, async { Ok::<_, ()>(5) })).unwrap();
        assert!(!compile(&mut shaders, "e").1);
    }

    #[test]
    fn what_is_found_is_the_last_to_be_dropped() {
        let mut queue = VecDeque::from([1, 2, 3]);
        assert_eq!(find(&mut queue, |&entry| entry == 1), Some(&1));
        assert_eq!(queue, [2, 3, 1]);
        assert_eq!(find(&mut queue, |&entry| entry == 4), None);
    }
}
