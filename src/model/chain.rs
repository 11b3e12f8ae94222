//! Several links in a row, with residual edges between them.

use std::ops::Range;

use crate::model::conv::{Activation, Conv2d, Extent, Padding, Residual};
use crate::model::error::{Error, Result};
use crate::model::shape::Shape;

/// One step of a chain.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    /// A convolution with its epilogue.
    Conv(Conv2d),
    /// The mean over the pixels of each channel of each image: `torch.nn.AdaptiveAvgPool2d(1)`.
    GlobalAveragePool,
}

impl Link {
    /// The convolution, if it is one.
    pub fn conv(&self) -> Option<&Conv2d> {
        match self {
            Self::Conv(conv) => Some(conv),
            Self::GlobalAveragePool => None,
        }
    }

    /// Whether and where it adds a residual; only a convolution does.
    pub fn residual(&self) -> Option<Residual> {
        self.conv().and_then(|conv| conv.residual)
    }

    /// The output's shape for an input's: that of a pool has the input's channels and a single pixel.
    ///
    /// # Errors
    /// What [`Conv2d::output_shape`] says; of a pool [`Error::EmptyInput`] and [`Error::TooLarge`].
    pub fn output_shape(&self, input: impl Into<Shape>) -> Result<Shape> {
        let input = input.into();
        match self {
            Self::Conv(conv) => conv.output_shape(input),
            Self::GlobalAveragePool if input.channels == 0 || input.pixels() == 0 => {
                Err(Error::EmptyInput { shape: input })
            }
            Self::GlobalAveragePool => {
                input.check_indexable("input")?;
                Ok(Shape { height: 1, width: 1, ..input })
            }
        }
    }
}

impl From<Conv2d> for Link {
    fn from(conv: Conv2d) -> Self {
        Self::Conv(conv)
    }
}

/// Links, each taking the output of the one before, and edges that feed residual additions.
///
/// Weights are given for the convolutions, in their order; a pool has none. Tensor 0 is the chain's input and tensor
/// `i + 1` the output of link `i`. A link that adds a residual takes it from an earlier tensor where an edge says so,
/// else from outside, by [`Inputs::residual`](crate::Inputs::residual); at most one link may do that.
///
/// ```
/// use gpuconv::{Activation, Chain, Conv2d, Residual};
/// // ResNet's basic block: the input is added before the second activation.
/// let conv = Conv2d::new(64, 64, 3).padding(1).activation(Activation::Relu);
/// let block = Chain::new([conv.clone(), conv]).edge(0, 1, Residual::BeforeActivation)?;
/// assert_eq!(block.shapes([1, 64, 56, 56])?, [[1, 64, 56, 56].into(); 3]);
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    links: Vec<Link>,
    /// For each link the tensor that it adds, if the chain itself has it.
    sources: Vec<Option<usize>>,
}

impl Chain {
    /// A chain without edges.
    pub fn new<L: Into<Link>>(links: impl IntoIterator<Item = L>) -> Self {
        let links: Vec<_> = links.into_iter().map(Into::into).collect();
        let sources = vec![None; links.len()];
        Self { links, sources }
    }

    /// Adds tensor `source` to link `link`'s output: 0 is the chain's input, `i + 1` link `i`'s output.
    ///
    /// # Errors
    /// [`Error::Chain`] unless the tensor is made before the link and the link is a convolution.
    pub fn edge(mut self, source: usize, link: usize, residual: Residual) -> Result<Self> {
        let count = self.links.len();
        match self.links.get_mut(link) {
            Some(Link::Conv(conv)) if source <= link => {
                conv.residual = Some(residual);
                self.sources[link] = Some(source);
                Ok(self)
            }
            _ => Err(Error::Chain(format!(
                "an edge leads from tensor {source} to link {link} of {count}; it must lead forward, to a convolution"
            ))),
        }
    }

    /// Expand (pointwise), depthwise, project (pointwise, linear), and the input added where stride 1
    /// and equal channels allow it: the block of MobileNetV2 (arXiv 1801.04381).
    pub fn inverted_residual(in_channels: u32, out_channels: u32, expansion: u32, stride: u32) -> Self {
        let hidden = in_channels.saturating_mul(expansion);
        let mut links = vec![
            Conv2d::depthwise(hidden, 3).stride(stride).padding(1).activation(Activation::Relu6),
            Conv2d::pointwise(hidden, out_channels),
        ];
        if expansion != 1 {
            links.insert(0, Conv2d::pointwise(in_channels, hidden).activation(Activation::Relu6));
        }
        let mut chain = Self::new(links);
        if stride == 1
            && in_channels == out_channels
            && let (Some(Link::Conv(conv)), Some(source)) = (chain.links.last_mut(), chain.sources.last_mut())
        {
            conv.residual = Some(Residual::AfterActivation);
            *source = Some(0);
        }
        chain
    }

    /// This chain, then another one on its output; tensor 0 of the other is that output.
    pub fn then(mut self, next: impl Into<Self>) -> Self {
        let (next, tensors) = (next.into(), self.links.len());
        self.links.extend(next.links);
        self.sources.extend(next.sources.into_iter().map(|source| source.map(|tensor| tensor + tensors)));
        self
    }

    /// The links, first to last.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The convolutions, each with the number of its link: what weights are given for, in this order.
    pub fn convolutions(&self) -> impl Iterator<Item = (usize, &Conv2d)> {
        self.links.iter().enumerate().filter_map(|(index, link)| Some((index, link.conv()?)))
    }

    /// The convolutions of a range of links, and which of the chain's they are; none if a link is something else.
    pub(crate) fn run(&self, links: Range<usize>) -> Option<(Vec<Conv2d>, Range<usize>)> {
        let first = self.links[..links.start].iter().filter(|link| link.conv().is_some()).count();
        let convs: Vec<_> = self.links[links].iter().map(|link| link.conv().cloned()).collect::<Option<_>>()?;
        let range = first..first + convs.len();
        Some((convs, range))
    }

    /// The links of a range as a chain of their own. What its last link adds comes from outside, unless it is the part's
    /// input.
    pub(crate) fn part(&self, links: Range<usize>) -> Self {
        let mut part = Self::new(self.links[links.clone()].to_vec());
        let last = links.end - 1;
        if self.source(last) == Some(links.start) {
            part.sources[last - links.start] = Some(0);
        }
        part
    }

    /// The tensor that link `link` adds, where the chain itself has it.
    pub fn source(&self, link: usize) -> Option<usize> {
        self.sources.get(link).copied().flatten()
    }

    /// The link whose residual comes from outside the chain.
    pub fn outside_residual(&self) -> Option<usize> {
        self.outside_residuals().next()
    }

    fn outside_residuals(&self) -> impl Iterator<Item = usize> {
        (0..self.links.len()).filter(|&link| self.links[link].residual().is_some() && self.sources[link].is_none())
    }

    /// The shapes of all tensors, the input's first.
    ///
    /// # Errors
    /// [`Error::Chain`] for a chain without links or with two residuals from outside; what
    /// [`Link::output_shape`] says of each link; [`Error::ShapeMismatch`] for an edge.
    pub fn shapes(&self, input: impl Into<Shape>) -> Result<Vec<Shape>> {
        let input = input.into();
        if self.links.is_empty() {
            return Err(Error::Chain("it has no links".into()));
        }
        if self.outside_residuals().count() > 1 {
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

impl From<Link> for Chain {
    fn from(link: Link) -> Self {
        Self::new([link])
    }
}

impl From<Conv2d> for Chain {
    fn from(link: Conv2d) -> Self {
        Self::new([link])
    }
}

/// A depthwise-separable convolution: depthwise, activation, pointwise, activation (arXiv 1704.04861).
///
/// ```
/// use gpuconv::{Activation, Chain, Separable};
/// let mut separable = Separable::new(32, 64, 3).padding(1).activation(Activation::Relu6);
/// // The halves are convolutions like any other; here the second one stays linear.
/// separable.pointwise.activation = Activation::None;
/// assert_eq!(Chain::from(separable).shapes([1, 32, 28, 28])?[2], [1, 64, 28, 28].into());
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Separable {
    /// The first link.
    pub depthwise: Conv2d,
    /// The second link.
    pub pointwise: Conv2d,
}

impl Separable {
    /// A separable convolution with a depthwise kernel of this size, of stride 1 without padding, with biases.
    pub fn new(in_channels: u32, out_channels: u32, kernel_size: impl Into<Extent>) -> Self {
        Self {
            depthwise: Conv2d::depthwise(in_channels, kernel_size),
            pointwise: Conv2d::pointwise(in_channels, out_channels),
        }
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
