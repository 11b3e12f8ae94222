//! Copies between a tensor and a band of it. No kernel for links: [`Division`](crate::planner::Division)s have it,
//! where a band cannot be bound as it lies in its tensor.

use minijinja::context;

use super::{Operand, Pass, REGISTERS_FOR_ADDRESSES, Wgsl};
use crate::model::dtype::DType;

/// Its name, for pipelines.
pub const NAME: &str = "copy";

const WORKGROUP: u32 = 64;
/// Units that an invocation copies: of a long run, or of as many short ones.
const STEPS: u32 = 8;

/// What is copied at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Four words.
    Quad,
    /// A word of 32 bits.
    Word,
    /// Half a word.
    Half,
}

impl Unit {
    /// All of them, the largest first.
    pub const ALL: [Self; 3] = [Self::Quad, Self::Word, Self::Half];

    /// Its bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Quad => 16,
            Self::Word => 4,
            Self::Half => 2,
        }
    }

    /// How many elements of a type it has; none if it is only a part of one.
    pub fn elements(self, dtype: DType) -> u32 {
        (self.bytes() / dtype.bytes()) as u32
    }
}

/// The parameter block: `Params` of `copy.wgsl`, number for number. Sizes are in units.
///
/// It is no longer than [`super::Params`], so that pipelines are compiled ahead in the same way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Params {
    /// Extents of the box, the outermost first; the elements of the last lie side by side.
    pub extents: [u32; 4],
    /// Where the box starts in what is read, then the distances of its outer extents there. Where the box starts
    /// outside of the tensor, this wraps around.
    pub reads: [u32; 4],
    /// The same in what is written.
    pub writes: [u32; 4],
    /// From where on each extent is there to be read.
    pub least: [u32; 4],
    /// How much of each is there. What is not there is zero.
    pub count: [u32; 4],
}

const _: () = assert!(size_of::<Params>() <= size_of::<super::Params>());

impl Params {
    /// Workgroups that copy it all: of short runs each takes several at a time.
    pub fn workgroups(&self) -> u64 {
        let [outer @ .., run] = self.extents.map(u64::from);
        let (runs, workgroup, steps) = (outer.iter().product::<u64>(), u64::from(WORKGROUP), u64::from(STEPS));
        match workgroup / run.max(1) {
            0 => runs * run.div_ceil(workgroup * steps),
            together => runs.div_ceil(together * steps),
        }
    }
}

/// The dispatch, but for its parameters and its grid.
pub fn pass(unit: Unit) -> Pass {
    let values = move || {
        let value = if unit == Unit::Quad { "vec4<u32>" } else { "u32" };
        context! { recipe => NAME, WORKGROUP, STEPS, VALUE => value, HALVES => unit == Unit::Half }
    };
    Pass {
        wgsl: Wgsl::template("copy.wgsl", values),
        operands: vec![Operand::Input, Operand::Output],
        params: super::Params::default(),
        workgroup: WORKGROUP,
        workgroups: 1,
        workgroup_memory: 0,
        sums: 1,
        registers: REGISTERS_FOR_ADDRESSES,
    }
}

/// All of them, for tests of shaders as text.
pub fn passes() -> impl Iterator<Item = Pass> {
    Unit::ALL.into_iter().map(pass)
}
