//! Places values in buffers so that values with a common moment do not overlap.
//!
//! Greedy by size, after Pisarchyk and Lee (arXiv 2001.03288), with one rule more. In wgpu no dispatch may read and
//! write the same buffer, not even disjoint ranges of it. So there are several buffers, and two values share one only
//! if no dispatch reads one and writes the other.

use std::ops::Range;

/// The values, by number, that a dispatch reads and writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    pub reads: Vec<usize>,
    pub writes: Vec<usize>,
}

/// A device's limits for buffers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Alignment of offsets, bytes.
    pub alignment: u64,
    /// The largest buffer, bytes.
    pub buffer: u64,
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub buffer: usize,
    /// Bytes from the buffer's start.
    pub offset: u64,
}

/// Where all values lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrangement {
    pub places: Vec<Place>,
    /// The sizes of the buffers, bytes, the largest first.
    pub buffers: Vec<u64>,
}

/// The smallest of a few greedy arrangements for values of `sizes` bytes. The dispatches are in order.
///
/// A value larger than the largest buffer gets a buffer of its own; making that buffer fails.
pub fn arrange(sizes: &[u64], dispatches: &[Uses], limits: Limits) -> Arrangement {
    let values = Values::new(sizes, dispatches);
    let by_size = largest_first(sizes);
    let by_time = in_order(values.lives.iter().map(|life| life.start as u64).zip(0..));
    let ways = [&by_size, &by_time].into_iter().flat_map(|order| [true, false].map(|spread| (order, spread)));
    let arrangements = ways.map(|(order, spread)| values.place(order, spread, limits));
    let best = arrangements.min_by_key(|found| (found.buffers.iter().sum::<u64>(), found.buffers.len()));
    best.unwrap_or_default().largest_first()
}

impl Arrangement {
    /// The same, its buffers sorted by size.
    fn largest_first(mut self) -> Self {
        let order = largest_first(&self.buffers);
        let mut numbers = vec![0; order.len()];
        for (number, &buffer) in order.iter().enumerate() {
            numbers[buffer] = number;
        }
        self.places.iter_mut().for_each(|place| place.buffer = numbers[place.buffer]);
        self.buffers = order.into_iter().map(|buffer| self.buffers[buffer]).collect();
        self
    }
}

/// Numbers in the order of their keys. A single sort for all, since each kind of elements takes code of its own.
fn in_order(keyed: impl Iterator<Item = (u64, usize)>) -> Vec<usize> {
    let mut keyed: Vec<_> = keyed.collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, number)| number).collect()
}

/// The numbers of sizes, those of the largest first.
fn largest_first(sizes: &[u64]) -> Vec<usize> {
    in_order(sizes.iter().map(|&size| u64::MAX - size).zip(0..))
}

struct Values<'a> {
    sizes: &'a [u64],
    /// From the first dispatch that uses a value to the last.
    lives: Vec<Range<usize>>,
    /// For each value, those that may not share its buffer.
    apart: Vec<Vec<usize>>,
}

impl<'a> Values<'a> {
    fn new(sizes: &'a [u64], dispatches: &[Uses]) -> Self {
        let mut lives = vec![0..0; sizes.len()];
        let mut apart = vec![Vec::new(); sizes.len()];
        for (now, uses) in dispatches.iter().enumerate() {
            for &value in uses.reads.iter().chain(&uses.writes) {
                let start = if lives[value].is_empty() { now } else { lives[value].start };
                lives[value] = start..now + 1;
            }
            for (&read, &written) in uses.reads.iter().flat_map(|read| uses.writes.iter().map(move |w| (read, w))) {
                apart[read].push(written);
                apart[written].push(read);
            }
        }
        Self { sizes, lives, apart }
    }

    /// Places the values in this order, each where the buffers grow least. With `spread`, a new buffer wins over one
    /// that would grow as much.
    fn place(&self, order: &[usize], spread: bool, limits: Limits) -> Arrangement {
        let mut found = Arrangement { places: vec![Place::default(); self.sizes.len()], buffers: Vec::new() };
        let mut inside: Vec<Vec<usize>> = Vec::new();
        for &value in order {
            let allowed = |buffer: &usize| inside[*buffer].iter().all(|other| !self.apart[value].contains(other));
            let options = (0..inside.len()).filter(allowed).filter_map(|buffer| {
                let offset = self.lowest_gap(value, &inside[buffer], &found.places, limits.alignment);
                let end = offset.checked_add(self.sizes[value])?;
                let growth = end.saturating_sub(found.buffers[buffer]);
                (end <= limits.buffer).then_some((growth, Place { buffer, offset }))
            });
            let best = options.min_by_key(|&(growth, _)| growth);
            let own = Place { buffer: inside.len(), offset: 0 };
            let place = match best {
                Some((growth, place)) if growth < self.sizes[value] || growth == self.sizes[value] && !spread => place,
                _ => own,
            };
            if place == own {
                inside.push(Vec::new());
                found.buffers.push(0);
            }
            inside[place.buffer].push(value);
            let size = &mut found.buffers[place.buffer];
            *size = (*size).max(place.offset + self.sizes[value]);
            found.places[value] = place;
        }
        found
    }

    /// The lowest offset at which a value overlaps none of a buffer's values that live at the same time.
    fn lowest_gap(&self, value: usize, inside: &[usize], places: &[Place], alignment: u64) -> u64 {
        let life = &self.lives[value];
        let meets = |other: &Range<usize>| life.start < other.end && other.start < life.end;
        let taken = inside.iter().filter(|&&other| meets(&self.lives[other]));
        let mut offset = 0;
        for other in in_order(taken.map(|&other| (places[other].offset, other))) {
            if places[other].offset >= offset + self.sizes[value] {
                break;
            }
            let end = places[other].offset + self.sizes[other];
            offset = offset.max(end.next_multiple_of(alignment.max(1)));
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { alignment: 256, buffer: 1 << 30 };

    fn dispatch(reads: &[usize], writes: &[usize]) -> Uses {
        Uses { reads: reads.to_vec(), writes: writes.to_vec() }
    }

    /// Checks an arrangement against the dispatches.
    fn check(sizes: &[u64], dispatches: &[Uses], limits: Limits) -> Arrangement {
        let found = arrange(sizes, dispatches, limits);
        let life = |value: usize| {
            let uses = |uses: &Uses| uses.reads.contains(&value) || uses.writes.contains(&value);
            (dispatches.iter().position(uses), dispatches.iter().rposition(uses))
        };
        let together = |a, b| life(a).0 <= life(b).1 && life(b).0 <= life(a).1;
        let clash = |a, b| dispatches.iter().any(|uses| uses.reads.contains(&a) && uses.writes.contains(&b));
        let range = |value: usize| found.places[value].offset..found.places[value].offset + sizes[value];
        assert!(found.buffers.is_sorted_by(|a, b| a >= b), "the largest is not the first in {found:?}");
        for a in 0..sizes.len() {
            assert!(found.places[a].offset.is_multiple_of(limits.alignment), "{a} is misaligned in {found:?}");
            assert!(range(a).end <= found.buffers[found.places[a].buffer], "{a} leaves its buffer in {found:?}");
            for b in (0..a).filter(|&b| found.places[a].buffer == found.places[b].buffer) {
                assert!(!clash(a, b) && !clash(b, a), "{a} and {b} share a buffer in {found:?}");
                let overlap = range(a).start < range(b).end && range(b).start < range(a).end;
                assert!(!together(a, b) || !overlap, "{a} and {b} overlap in {found:?}");
            }
        }
        found
    }

    /// Dispatch `i` reads value `i - 1` and writes value `i`; the caller has input and output.
    fn line(count: usize) -> Vec<Uses> {
        let read = |now: usize| if now > 0 { vec![now - 1] } else { Vec::new() };
        let write = |now: usize| if now < count { vec![now] } else { Vec::new() };
        (0..=count).map(|now| Uses { reads: read(now), writes: write(now) }).collect()
    }

    #[test]
    fn a_line_takes_turns_between_two_buffers() {
        assert_eq!(check(&[1024, 512, 2048, 4096, 256], &line(5), LIMITS).buffers, [4096, 2048]);
        assert_eq!(check(&[1024], &line(1), LIMITS).buffers, [1024]);
        assert!(check(&[], &line(0), LIMITS).buffers.is_empty());
    }

    #[test]
    fn a_value_that_an_edge_keeps_is_not_overwritten() {
        // 0 is read by the first dispatch and, over an edge, by the third; 1 and 2 lie between.
        let dispatches = [
            dispatch(&[], &[0]),
            dispatch(&[0], &[1]),
            dispatch(&[1], &[2]),
            dispatch(&[2, 0], &[3]),
            dispatch(&[3], &[]),
        ];
        let found = check(&[100, 600, 600, 100], &dispatches, LIMITS);
        // 0, 1 and 2 live at once; 3 lies where 1 was.
        assert_eq!(found.buffers.iter().sum::<u64>(), 1300);
        assert_eq!(found.places[3].buffer, found.places[1].buffer);
    }

    #[test]
    fn values_that_are_only_read_together_may_share_a_buffer() {
        // 0 and 1 are two outputs of one dispatch, and read together by the next.
        let found =
            check(&[256, 256, 512], &[dispatch(&[], &[0, 1]), dispatch(&[0, 1], &[2]), dispatch(&[2], &[])], LIMITS);
        assert_eq!(found.buffers.iter().sum::<u64>(), 1024);
    }

    #[test]
    fn no_buffer_is_larger_than_the_device_has() {
        // Three values that live together fit into no buffer of two.
        let dispatches = [dispatch(&[], &[0, 1, 2]), dispatch(&[0, 1, 2], &[])];
        let found = check(&[512, 512, 512], &dispatches, Limits { alignment: 256, buffer: 1024 });
        assert!(found.buffers.iter().all(|&bytes| bytes <= 1024), "{found:?}");
    }

    /// Numbers that are the same in every run.
    fn draw(seed: &mut u64, below: u64) -> u64 {
        *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*seed >> 33) % below
    }

    #[test]
    fn any_chain_with_edges_is_arranged_soundly() {
        let (mut seed, mut saved, mut whole) = (1, 0, 0);
        for _ in 0..500 {
            let count = 1 + draw(&mut seed, 24) as usize;
            let sizes: Vec<_> = (0..count).map(|_| 4 * (1 + draw(&mut seed, 1000))).collect();
            let mut dispatches = line(count);
            for (now, uses) in dispatches.iter_mut().enumerate().take(count).skip(2) {
                if draw(&mut seed, 3) == 0 {
                    uses.reads.push(draw(&mut seed, now as u64 - 1) as usize);
                }
            }
            let limits = Limits { alignment: [4, 32, 256][draw(&mut seed, 3) as usize], buffer: 1 << 20 };
            let total: u64 = check(&sizes, &dispatches, limits).buffers.iter().sum();
            assert!(total <= sizes.iter().sum(), "{total} bytes are more than without reuse: {sizes:?}");
            (saved, whole) = (saved + total, whole + sizes.iter().sum::<u64>());
        }
        assert!(saved * 2 < whole, "only {saved} of {whole} bytes");
    }
}
