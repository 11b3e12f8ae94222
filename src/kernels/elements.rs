//! The types of elements, as shaders load and store them.

use minijinja::{Value, context};

use crate::model::caps::Caps;
use crate::model::dtype::DType;
use crate::model::link::{Link, ends};

/// How a shader has the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// As f32.
    F32,
    /// As f16, on devices whose shaders have it. Neighbours that are loaded or stored together are words as well.
    F16,
    /// As halves of 32-bit words, on any device.
    Words,
}

impl Element {
    /// How shaders for a device have a type.
    pub fn new(dtype: DType, caps: &Caps) -> Self {
        match dtype {
            DType::F32 => Self::F32,
            DType::F16 if caps.f16 => Self::F16,
            DType::F16 => Self::Words,
        }
    }

    /// The type in memory.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 | Self::Words => DType::F16,
        }
    }

    /// What `tensors.wgsl` calls it.
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Words => "words",
        }
    }

    /// Whether two neighbours can be one load.
    pub fn has_pairs(self, caps: &Caps) -> bool {
        self != Self::F32 || caps.int64
    }

    /// Whether kernels load and store two neighbours together where they can. Two halves are no more than a float; two
    /// floats at a time are for software devices, which pay by the load.
    pub fn prefers_pairs(self, caps: &Caps) -> bool {
        self != Self::F32 || (caps.is_cpu && caps.int64)
    }

    /// What a load of several elements counts for each, where one of an f32 counts 1.
    pub fn of_wide_load(self) -> f64 {
        self.dtype().bytes() as f64 / DType::F32.bytes() as f64
    }
}

/// The types of the elements of a run or a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elements {
    /// Those of the input.
    pub input: Element,
    /// Those of weights and biases.
    pub weights: Element,
    /// Those of the output and the residual.
    pub output: Element,
}

impl Elements {
    /// All f32.
    pub const F32: Self = Self { input: Element::F32, weights: Element::F32, output: Element::F32 };

    /// All of one type, as shaders for a device have it.
    pub fn new(dtype: DType, caps: &Caps) -> Self {
        let element = Element::new(dtype, caps);
        Self { input: element, weights: element, output: element }
    }

    /// Those of links in a chain of one type.
    pub fn of_links(links: &[Link], dtype: DType, caps: &Caps) -> Self {
        let [input, output] = ends(links, dtype).map(|end| Element::new(end, caps));
        Self { input, output, ..Self::new(dtype, caps) }
    }

    /// What `tensors.wgsl` asks for.
    pub fn values(self) -> Value {
        let [input, weights, output] = [self.input, self.weights, self.output].map(Element::name);
        context! { input, weights, output }
    }
}
