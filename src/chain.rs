//! Several convolutions in a row, with residual edges between them.

use crate::conv::{Activation, Conv2d, Extent, Padding, Residual};
use crate::error::{Error, Result};
use crate::shape::Shape;

/// Links, each taking the output of the one before, and edges that feed residual additions.
///
/// Tensor 0 is the chain's input and tensor `i + 1` the output of link `i`. A link that adds a
/// residual takes it from an earlier tensor where an edge says so, else from outside, by
/// [`Layer::forward_residual`](crate::Layer::forward_residual); one link at the most may do that.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    links: Vec<Conv2d>,
    /// For each link the tensor that it adds, if the chain itself has it.
    sources: Vec<Option<usize>>,
}

impl Chain {
    /// A chain without edges.
    pub fn new(links: impl IntoIterator<Item = Conv2d>) -> Self {
        let links: Vec<_> = links.into_iter().collect();
        let sources = vec![None; links.len()];
        Self { links, sources }
    }

    /// Adds tensor `source` to link `link`'s output: 0 is the chain's input, `i + 1` link `i`'s output.
    ///
    /// # Errors
    /// [`Error::Chain`] unless the tensor is made before the link.
    pub fn edge(mut self, source: usize, link: usize, residual: Residual) -> Result<Self> {
        if link >= self.links.len() || source > link {
            return Err(Error::Chain(format!(
                "an edge leads from tensor {source} to link {link} of {}; it must lead forward, to a link",
                self.links.len()
            )));
        }
        self.links[link].residual = Some(residual);
        self.sources[link] = Some(source);
        Ok(self)
    }

    /// Expand (pointwise), depthwise, project (pointwise, linear), and the input added where stride 1
    /// and equal channels allow it: the block of MobileNetV2 (arXiv 1801.04381).
    pub fn inverted_residual(in_channels: u32, out_channels: u32, expansion: u32, stride: u32) -> Self {
        let hidden = in_channels.saturating_mul(expansion);
        let mut links = vec![
            Conv2d::depthwise(hidden).kernel_size(3).stride(stride).padding(1).activation(Activation::Relu6),
            Conv2d::pointwise(hidden, out_channels),
        ];
        if expansion != 1 {
            links.insert(0, Conv2d::pointwise(in_channels, hidden).activation(Activation::Relu6));
        }
        let mut chain = Self::new(links);
        if stride == 1
            && in_channels == out_channels
            && let (Some(link), Some(source)) = (chain.links.last_mut(), chain.sources.last_mut())
        {
            link.residual = Some(Residual::AfterActivation);
            *source = Some(0);
        }
        chain
    }

    /// The links, first to last.
    pub fn links(&self) -> &[Conv2d] {
        &self.links
    }

    /// The tensor that link `link` adds, where the chain itself has it.
    pub fn source(&self, link: usize) -> Option<usize> {
        self.sources.get(link).copied().flatten()
    }

    /// The link whose residual comes from outside the chain.
    pub fn outside_residual(&self) -> Option<usize> {
        (0..self.links.len()).find(|&link| self.links[link].residual.is_some() && self.sources[link].is_none())
    }

    /// The shapes of all tensors, the input's first.
    ///
    /// # Errors
    /// [`Error::Chain`] for a chain without links or with two residuals from outside; what
    /// [`Conv2d::output_shape`] says of each link; [`Error::ShapeMismatch`] for an edge.
    pub fn shapes(&self, input: Shape) -> Result<Vec<Shape>> {
        if self.links.is_empty() {
            return Err(Error::Chain("it has no links".into()));
        }
        let outside = |link: &usize| self.links[*link].residual.is_some() && self.sources[*link].is_none();
        if (0..self.links.len()).filter(outside).count() > 1 {
            return Err(Error::Chain("more than one link adds a residual from outside".into()));
        }
        let mut shapes = vec![input];
        for (index, link) in self.links.iter().enumerate() {
            let output = link.output_shape(shapes[index]).map_err(|error| match error {
                Error::Channels { expected, actual, .. } => Error::Channels { link: index, expected, actual },
                other => other,
            })?;
            if let Some(source) = self.sources[index]
                && shapes[source] != output
            {
                return Err(Error::ShapeMismatch { tensor: "residual", expected: output, actual: shapes[source] });
            }
            shapes.push(output);
        }
        Ok(shapes)
    }
}

impl From<Conv2d> for Chain {
    fn from(link: Conv2d) -> Self {
        Self::new([link])
    }
}

/// A depthwise-separable convolution: depthwise, activation, pointwise, activation (arXiv 1704.04861).
#[derive(Clone, Debug, PartialEq)]
pub struct Separable {
    /// The first link.
    pub depthwise: Conv2d,
    /// The second link.
    pub pointwise: Conv2d,
}

impl Separable {
    /// A separable convolution whose depthwise half is 1x1 until [`Separable::kernel_size`] says otherwise.
    pub fn new(in_channels: u32, out_channels: u32) -> Self {
        Self { depthwise: Conv2d::depthwise(in_channels), pointwise: Conv2d::pointwise(in_channels, out_channels) }
    }

    /// Rows and columns of the depthwise kernel.
    pub fn kernel_size(mut self, size: impl Into<Extent>) -> Self {
        self.depthwise = self.depthwise.kernel_size(size);
        self
    }

    /// Steps of the depthwise half.
    pub fn stride(mut self, stride: impl Into<Extent>) -> Self {
        self.depthwise = self.depthwise.stride(stride);
        self
    }

    /// Zeros around the image.
    pub fn padding(mut self, padding: impl Into<Padding>) -> Self {
        self.depthwise = self.depthwise.padding(padding);
        self
    }

    /// Distance between the depthwise kernel's rows and columns.
    pub fn dilation(mut self, dilation: impl Into<Extent>) -> Self {
        self.depthwise = self.depthwise.dilation(dilation);
        self
    }

    /// Whether both halves have a bias.
    pub fn bias(mut self, bias: bool) -> Self {
        self.depthwise.bias = bias;
        self.pointwise.bias = bias;
        self
    }

    /// The activation after both halves; the fields take two different ones.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.depthwise.activation = activation;
        self.pointwise.activation = activation;
        self
    }

    /// Where a residual is added to the pointwise half, if at all.
    pub fn residual(mut self, residual: impl Into<Option<Residual>>) -> Self {
        self.pointwise.residual = residual.into();
        self
    }

    /// The standard convolution that this one stands in for.
    pub fn standard(&self) -> Conv2d {
        Conv2d {
            out_channels: self.pointwise.out_channels,
            groups: 1,
            activation: self.pointwise.activation,
            residual: self.pointwise.residual,
            ..self.depthwise.clone()
        }
    }
}

impl From<Separable> for Chain {
    fn from(separable: Separable) -> Self {
        Self::new([separable.depthwise, separable.pointwise])
    }
}

impl From<&Separable> for Chain {
    fn from(separable: &Separable) -> Self {
        separable.clone().into()
    }
}

impl From<&Conv2d> for Chain {
    fn from(link: &Conv2d) -> Self {
        link.clone().into()
    }
}
