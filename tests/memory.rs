//! What is kept: little text.

use std::alloc::{GlobalAlloc, Layout as Allocation, System};
use std::cell::Cell;

use gpuconv::{Caps, Choice, Layout, nets, planner};

/// Counts what each thread allocates, for the tests of a program share its heap.
struct Counting;

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static MADE: Cell<i64> = const { Cell::new(0) };
}

/// A thread that ends has no counters any more.
fn count(live: i64, made: i64) {
    let _ = LIVE.try_with(|cell| cell.set(cell.get() + live));
    let _ = MADE.try_with(|cell| cell.set(cell.get() + made));
}

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Allocation) -> *mut u8 {
        count(layout.size() as i64, layout.size() as i64);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Allocation) {
        count(-(layout.size() as i64), 0);
        // SAFETY: as the caller says.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What some work allocates, and what of it its result keeps, bytes.
fn host_bytes<T>(work: impl FnOnce() -> T) -> (T, i64, i64) {
    let before = (LIVE.get(), MADE.get());
    let result = work();
    (result, MADE.get() - before.1, LIVE.get() - before.0)
}

/// A network's plan has a few dozen steps of 900 candidates; the text of their shaders is 18 MB.
#[test]
fn a_schedule_has_no_text_of_shaders_and_is_made_without() {
    let network = nets::mobilenet_v2(1.0, 1000).unwrap();
    let gpu = Caps { max_invocations: 1024, max_workgroup_memory: 32768, subgroup: Some([32, 64]), ..Caps::webgpu() };
    for caps in [Caps::webgpu(), gpu] {
        let plan =
            || planner::schedule(&network.chain, [1, 3, 224, 224].into(), Layout::Nchw, &caps, &Choice::Auto).unwrap();
        let (schedule, made, kept) = host_bytes(plan);
        let candidates = schedule.considered.iter().flat_map(|considered| considered.answer.iter().flatten()).count();
        println!("{candidates} candidates: {kept} bytes, for which {made} were allocated");
        assert!(candidates > 500, "only {candidates} candidates");
        assert!(kept < 1_000_000, "{kept} bytes are kept");
        assert!(made < 6_000_000, "{made} bytes were allocated");
    }
}
