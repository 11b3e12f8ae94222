//! Several links in a row, with edges from earlier tensors.

use std::ops::Range;

use crate::model::conv::{Activation, Conv2d, Extent, Padding, Residual};
use crate::model::dtype::DType;
use crate::model::error::{Error, Result};
use crate::model::pool::{Pool2d, PoolMode};
use crate::model::shape::Shape;

/// One operation of a chain, with its epilogue.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    /// A convolution with its epilogue.
    Conv(Conv2d),
    /// A pool over windows.
    Pool(Pool2d),
    /// The mean over the pixels of each channel of each image: `torch.nn.AdaptiveAvgPool2d(1)`.
    GlobalAveragePool,
    /// The sum over the pixels of each channel of each image, divided by a number: a part of a global average pool whose
    /// planes are larger than a binding.
    #[doc(hidden)]
    PlaneSum {
        /// What the sum is divided by.
        divisor: u32,
    },
}

impl Link {
    /// The convolution, if it is one.
    pub fn conv(&self) -> Option<&Conv2d> {
        match self {
            Self::Conv(conv) => Some(conv),
            Self::Pool(_) | Self::GlobalAveragePool | Self::PlaneSum { .. } => None,
        }
    }

    /// The windows that its outputs depend on, if they are windows: of a convolution and of a pool over windows.
    pub(crate) fn window(&self) -> Option<Window> {
        match self {
            Self::Conv(conv) => {
                Some(Window { extents: conv.dilated_kernel(), stride: conv.stride, padding: conv.padding })
            }
            Self::Pool(pool) => {
                Some(Window { extents: pool.dilated_kernel(), stride: pool.stride, padding: pool.padding })
            }
            Self::GlobalAveragePool | Self::PlaneSum { .. } => None,
        }
    }

    /// Whether no output depends on another channel than its own.
    pub(crate) fn keeps_channels_apart(&self) -> bool {
        self.conv().is_none_or(Conv2d::is_depthwise)
    }

    /// Its name, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Conv(_) => "a convolution",
            Self::Pool(Pool2d { mode: PoolMode::Max, .. }) => "a max pool",
            Self::Pool(Pool2d { mode: PoolMode::Average { .. }, .. }) => "an average pool",
            Self::GlobalAveragePool => "a global average pool",
            Self::PlaneSum { .. } => "a sum of each plane",
        }
    }

    /// Whether and where it adds a residual; only a convolution does.
    pub fn residual(&self) -> Option<Residual> {
        match self {
            Self::Conv(conv) => conv.residual,
            Self::Pool(_) | Self::GlobalAveragePool | Self::PlaneSum { .. } => None,
        }
    }

    /// The activation after its sum and a residual that is added before it.
    pub(crate) fn activation(&self) -> Activation {
        match self {
            Self::Conv(conv) => conv.activation,
            Self::Pool(_) | Self::GlobalAveragePool | Self::PlaneSum { .. } => Activation::None,
        }
    }

    /// The output's shape for an input's: that of a global pool has the input's channels and a single pixel.
    ///
    /// # Errors
    /// What [`Conv2d::output_shape`] and [`Pool2d::output_shape`] say; of a global pool [`Error::EmptyInput`] and
    /// [`Error::TooLarge`].
    pub fn output_shape(&self, input: impl Into<Shape>) -> Result<Shape> {
        let input = input.into();
        match self {
            Self::Conv(conv) => conv.output_shape(input),
            Self::Pool(pool) => pool.output_shape(input),
            Self::GlobalAveragePool | Self::PlaneSum { .. } if input.channels == 0 || input.pixels() == 0 => {
                Err(Error::EmptyInput { shape: input })
            }
            Self::GlobalAveragePool | Self::PlaneSum { .. } => {
                input.check_indexable("input")?;
                Ok(Shape { height: 1, width: 1, ..input })
            }
        }
    }
}

/// What an output depends on: rows and columns, the steps between two, and what lies around the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// With what dilation leaves out.
    pub extents: [u64; 2],
    pub stride: [u32; 2],
    pub padding: [u32; 4],
}

impl From<Pool2d> for Link {
    fn from(pool: Pool2d) -> Self {
        Self::Pool(pool)
    }
}

impl From<Conv2d> for Link {
    fn from(conv: Conv2d) -> Self {
        Self::Conv(conv)
    }
}

/// A tensor that a link reads besides the output of the link before.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The tensor: 0 is the chain's input, `i + 1` the output of link `i`.
    pub tensor: usize,
    /// The link that reads it.
    pub link: usize,
    /// What the link does with it.
    pub join: Join,
}

/// What a link does with the tensor of an edge.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// It adds the tensor, of its output's shape, as its [`Residual`] says.
    Add,
}

/// Links in a row. Each reads the output of the link before, and the tensors that edges bring.
///
/// Weights are given for the convolutions, in their order; a pool has none. Tensor 0 is the chain's input and tensor
/// `i + 1` the output of link `i`. A link that adds a residual takes it from an earlier tensor if it has an edge,
/// otherwise from outside: [`Inputs::residual`](crate::Inputs::residual). At most one link may take it from outside.
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
    /// In the order of the links that read them; at most one of a kind for each.
    edges: Vec<Edge>,
    dtype: DType,
}

impl Chain {
    /// A chain of f32 without edges.
    pub fn new<L: Into<Link>>(links: impl IntoIterator<Item = L>) -> Self {
        Self { links: links.into_iter().map(Into::into).collect(), edges: Vec::new(), dtype: DType::F32 }
    }

    /// The same with tensors and weights of another element type.
    pub fn with_dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
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
                self.join(Edge { tensor: source, link, join: Join::Add });
                Ok(self)
            }
            _ => Err(Error::Chain(format!(
                "an edge leads from tensor {source} to link {link} of {count}; it must lead forward, to a convolution"
            ))),
        }
    }

    /// Adds an edge. It replaces one of the same kind to the same link.
    fn join(&mut self, edge: Edge) {
        self.edges.retain(|other| (other.link, other.join) != (edge.link, edge.join));
        let place = self.edges.partition_point(|other| other.link <= edge.link);
        self.edges.insert(place, edge);
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
        let adds = stride == 1 && in_channels == out_channels;
        let last = links.len() - 1;
        links[last].residual = adds.then_some(Residual::AfterActivation);
        let mut chain = Self::new(links);
        if adds {
            chain.join(Edge { tensor: 0, link: last, join: Join::Add });
        }
        chain
    }

    /// This chain, then another one on its output; tensor 0 of the other is that output. The element type is this one's.
    pub fn then(mut self, next: impl Into<Self>) -> Self {
        let (next, count) = (next.into(), self.links.len());
        self.links.extend(next.links);
        let moved = |edge: Edge| Edge { tensor: edge.tensor + count, link: edge.link + count, ..edge };
        self.edges.extend(next.edges.into_iter().map(moved));
        self
    }

    /// The links, first to last.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The element type of its tensors and weights.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The edges, in the order of the links that read them.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The edges of a link.
    pub(crate) fn edges_of(&self, link: usize) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.link == link)
    }

    /// The convolutions, each with the number of its link: what weights are given for, in this order.
    pub fn convolutions(&self) -> impl Iterator<Item = (usize, &Conv2d)> {
        self.links.iter().enumerate().filter_map(|(index, link)| Some((index, link.conv()?)))
    }

    /// Spreads items for the convolutions over all links: `None` for a link without weights.
    pub(crate) fn by_link<T: Copy>(&self, weights: &[T]) -> Vec<Option<T>> {
        let mut weights = weights.iter().copied();
        self.links.iter().map(|link| link.conv().and_then(|_| weights.next())).collect()
    }

    /// The links of a range as a chain of their own. A residual of its last link comes from outside, unless it is the part's
    /// input.
    pub(crate) fn part(&self, links: Range<usize>) -> Self {
        let mut part = Self::new(self.links[links.clone()].to_vec()).with_dtype(self.dtype);
        for edge in &self.edges {
            match edge.join {
                Join::Add if edge.link + 1 == links.end && edge.tensor == links.start => {
                    part.join(Edge { tensor: 0, link: edge.link - links.start, ..*edge });
                }
                Join::Add => {}
            }
        }
        part
    }

    /// The tensor of this chain that link `link` adds, if any.
    pub fn source(&self, link: usize) -> Option<usize> {
        self.edges_of(link).find(|edge| edge.join == Join::Add).map(|edge| edge.tensor)
    }

    /// The link whose residual comes from outside the chain.
    pub fn outside_residual(&self) -> Option<usize> {
        self.outside_residuals().next()
    }

    fn outside_residuals(&self) -> impl Iterator<Item = usize> {
        (0..self.links.len()).filter(|&link| self.links[link].residual().is_some() && self.source(link).is_none())
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
            for edge in self.edges_of(index) {
                match (edge.join, shapes[edge.tensor]) {
                    (Join::Add, actual) if actual == output => {}
                    (Join::Add, actual) => {
                        return Err(Error::ShapeMismatch { tensor: "residual", expected: output, actual });
                    }
                }
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

impl From<Pool2d> for Chain {
    fn from(pool: Pool2d) -> Self {
        Self::new([pool])
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

    /// The standard convolution that this one replaces.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_move_with_their_links() {
        let block = || Chain::inverted_residual(4, 4, 2, 1);
        let add = |tensor, link| Edge { tensor, link, join: Join::Add };
        let chain = block().then(Conv2d::pointwise(4, 4)).then(block());
        assert_eq!(chain.edges(), [add(0, 2), add(4, 6)]);
        assert_eq!((chain.source(2), chain.source(3), chain.source(6)), (Some(0), None, Some(4)));
        // A second edge to a link takes the place of the first, and all stay in the order of their links.
        let chain =
            chain.edge(4, 5, Residual::BeforeActivation).unwrap().edge(1, 2, Residual::AfterActivation).unwrap();
        assert_eq!(chain.edges(), [add(1, 2), add(4, 5), add(4, 6)]);
        assert_eq!((chain.part(4..7).edges(), chain.part(3..7).edges()), (&[add(0, 2)][..], &[][..]));
        let unequal = chain.shapes([1, 4, 5, 5]);
        assert!(matches!(unequal, Err(Error::ShapeMismatch { tensor: "residual", .. })), "{unequal:?}");
    }

    #[test]
    fn weights_are_told_apart_by_their_links() {
        let chain =
            Chain::new([Conv2d::pointwise(1, 1).into(), Link::GlobalAveragePool, Conv2d::pointwise(1, 1).into()]);
        assert_eq!(chain.by_link(&["first", "second"]), [Some("first"), None, Some("second")]);
    }
}
