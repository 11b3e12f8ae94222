//! What a convolution costs: parameters, multiply-adds, bytes moved.
//!
//! A separable convolution has `1/out_channels + 1/kernel_size^2` of the standard one's multiply-adds and
//! weights (Howard et al., arXiv 1704.04861). Counted as torchinfo counts: a bias is a parameter, and one
//! multiply-add an output; pooling is bytes alone.

use crate::model::chain::{Chain, Link, scale_shape};
use crate::model::conv::Conv2d;
use crate::model::error::Result;
use crate::model::shape::Shape;

/// What one link costs.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkCost {
    /// The shape of its output.
    pub output: Shape,
    /// Weights and biases.
    pub params: u64,
    /// Multiply-adds, the bias one of them.
    pub mult_adds: u64,
    /// Bytes from and to memory, in the chain's element type: input, parameters, residual, scale, output. A
    /// concatenation moves none, as if the links before it stored where it has their outputs.
    pub bytes: u64,
}

/// What a chain costs.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct ChainCost {
    /// Link by link.
    pub links: Vec<LinkCost>,
    /// All weights and biases.
    pub params: u64,
    /// All multiply-adds.
    pub mult_adds: u64,
    /// Bytes moved if each link runs alone.
    pub bytes_unfused: u64,
    /// Bytes moved if no tensor between two links goes to memory.
    pub bytes_fused: u64,
}

impl ChainCost {
    /// Floating-point operations (two a multiply-add) for each byte moved, if fused.
    pub fn intensity_fused(&self) -> f64 {
        2.0 * self.mult_adds as f64 / self.bytes_fused.max(1) as f64
    }

    /// Floating-point operations for each byte moved, if each link runs alone.
    pub fn intensity_unfused(&self) -> f64 {
        2.0 * self.mult_adds as f64 / self.bytes_unfused.max(1) as f64
    }
}

impl LinkCost {
    /// Floating-point operations (two a multiply-add) for each byte moved.
    pub fn intensity(&self) -> f64 {
        2.0 * self.mult_adds as f64 / self.bytes.max(1) as f64
    }
}

/// Weights and biases of a link.
pub fn params(conv: &Conv2d) -> u64 {
    conv.weight_shape().len().saturating_add(if conv.bias { u64::from(conv.out_channels) } else { 0 })
}

/// Weights and biases of any link.
pub(crate) fn params_of(link: &Link) -> u64 {
    link.convolutions().map(params).sum()
}

/// Multiply-adds of any link for an output.
pub(crate) fn mult_adds_of(link: &Link, input: Shape, output: Shape) -> u64 {
    match link {
        Link::Conv(conv) => output.len() * (conv.fan_in() + u64::from(conv.bias)),
        Link::SqueezeExcite(gate) => {
            let of = |conv: &Conv2d| u64::from(conv.out_channels) * (conv.fan_in() + u64::from(conv.bias));
            u64::from(output.batch) * (of(&gate.squeeze) + of(&gate.excite))
        }
        // Each value of the input is multiplied by each weight of its channel. torchinfo counts zeros as well.
        Link::ConvTranspose(own) => {
            let weights =
                u64::from(own.conv.group_out_channels()) * own.conv.kernel_size.map(u64::from).iter().product::<u64>();
            input.len() * weights + if own.conv.bias { output.len() } else { 0 }
        }
        _ => 0,
    }
}

/// The cost of a chain on an input.
///
/// ```
/// use gpuconv::{Chain, Conv2d, Separable, cost};
/// let input = [1, 512, 128, 128];
/// let separable = Separable::new(512, 1024, 3).stride(2).padding(1);
/// let standard = cost::chain(&Chain::from(separable.standard()), input)?;
/// let separable = cost::chain(&Chain::from(separable), input)?;
/// assert_eq!((standard.params, standard.mult_adds), (4719616, 19331547136));
/// assert_eq!((separable.params, separable.mult_adds), (530432, 2172649472));
/// # Ok::<(), gpuconv::Error>(())
/// ```
///
/// # Errors
/// What [`Chain::shapes`] says.
pub fn chain(chain: &Chain, input: impl Into<Shape>) -> Result<ChainCost> {
    let input = input.into();
    let shapes = chain.shapes(input)?;
    let mut total = ChainCost { links: Vec::new(), params: 0, mult_adds: 0, bytes_unfused: 0, bytes_fused: 0 };
    let (last, dtype) = (chain.links().len() - 1, chain.dtype());
    for (index, link) in chain.links().iter().enumerate() {
        let (input, output) = (shapes[chain.input_of(index)], shapes[index + 1]);
        let params = params_of(link);
        let residual = if link.residual().is_some() { output.bytes(dtype) } else { 0 };
        let scale = if link.is_scaled() { scale_shape(input).bytes(dtype) } else { 0 };
        let parameter_bytes = params * dtype.bytes() + residual + scale;
        let mult_adds = mult_adds_of(link, input, output);
        let bytes = match link {
            // Tensors may be made where they are put together.
            Link::Concat(_) => 0,
            // It reads what it writes, a part of its input.
            Link::Slice { .. } => 2 * output.bytes(dtype),
            _ => input.bytes(dtype) + parameter_bytes + output.bytes(dtype),
        };
        total.params += params;
        // Of a few links as large as links may be the sum passes 64 bits.
        total.mult_adds = total.mult_adds.saturating_add(mult_adds);
        total.bytes_unfused += bytes;
        total.bytes_fused += parameter_bytes
            + match link {
                _ if index > 0 => 0,
                Link::Slice { .. } => output.bytes(dtype),
                _ => input.bytes(dtype),
            }
            + if index == last { output.bytes(dtype) } else { 0 };
        total.links.push(LinkCost { output, params, mult_adds, bytes });
    }
    Ok(total)
}
