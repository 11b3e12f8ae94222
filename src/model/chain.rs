//! Several links in a row, with edges from earlier tensors.

use std::ops::Range;

use crate::model::conv::{Activation, Conv2d, Residual};
use crate::model::dtype::DType;
use crate::model::error::{Error, Result};
pub use crate::model::link::Link;
use crate::model::link::ends;
use crate::model::pool::Pool2d;
use crate::model::prelu::PRelu;
use crate::model::resize::{Resize, ResizeTo};
use crate::model::shape::Shape;
use crate::model::transposed::ConvTranspose2d;

/// A tensor that a link reads besides the output of the link before, or instead of it.
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
    /// It reads the tensor instead of the output of the link before.
    Input,
    /// It multiplies what it reads by the tensor, which has a value for each image and channel.
    Scale,
    /// It puts the channels of the tensor behind those of what it reads, and behind those of the edges of this kind
    /// before.
    Concat,
}

/// Links in a row. Each reads the output of the link before, or an earlier tensor, and the tensors that edges bring.
///
/// Tensor 0 is the chain's input and tensor `i + 1` the output of link `i`; the output of the last is the chain's.
/// Weights are given for the convolutions, in their order: a gate has two, a PReLU one (its slopes, without a bias), a
/// pool none. A link that adds a residual takes it from an earlier tensor if it has an edge, otherwise from outside:
/// [`Inputs::residual`](crate::Inputs::residual). So does a link that is [scaled](Conv2d::scaled). At most one link may
/// take each from outside.
///
/// ```
/// use gpuconv::{Activation, Chain, Conv2d, Residual};
/// // ResNet's basic block: the input is added before the second activation.
/// let conv = Conv2d::new(64, 64, 3).padding(1).activation(Activation::Relu);
/// let block = Chain::new([conv.clone(), conv]).edge(0, 1, Residual::BeforeActivation)?;
/// assert_eq!(block.shapes([1, 64, 56, 56])?, [[1, 64, 56, 56].into(); 3]);
///
/// // Its block with a projection: the third link reads the block's input, and adds the output of the second.
/// let down = Conv2d::new(64, 128, 3).padding(1).stride(2).activation(Activation::Relu);
/// let last = Conv2d::new(128, 128, 3).padding(1);
/// let project = Conv2d::pointwise(64, 128).stride(2).activation(Activation::Relu);
/// let block = Chain::new([down, last, project]).reads(0, 2)?.edge(2, 2, Residual::BeforeActivation)?;
/// assert_eq!(block.shapes([1, 64, 56, 56])?[3], [1, 128, 28, 28].into());
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    links: Vec<Link>,
    /// In the order of the links that read them; at most one of a kind for each, but for concatenations.
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
        self.taker(source, link, "add")?.residual = Some(residual);
        self.join(Edge { tensor: source, link, join: Join::Add });
        Ok(self)
    }

    /// Has link `link` read tensor `source` instead of the output of the link before: 0 is the chain's input, `i + 1`
    /// link `i`'s output.
    ///
    /// # Errors
    /// [`Error::Chain`] unless the tensor is made before the link.
    pub fn reads(mut self, source: usize, link: usize) -> Result<Self> {
        let count = self.links.len();
        if link >= count || source > link {
            return Err(Error::Chain(format!(
                "link {link} of {count} is to read tensor {source}; it can read tensors 0 to {link}"
            )));
        }
        self.edges.retain(|edge| (edge.link, edge.join) != (link, Join::Input));
        if source != link {
            self.join(Edge { tensor: source, link, join: Join::Input });
        }
        Ok(self)
    }

    /// Has link `link` multiply what it reads by tensor `source`, which has a value for each image and channel: what a
    /// gate gives.
    ///
    /// # Errors
    /// [`Error::Chain`] unless the tensor is made before the link and the link is a convolution.
    pub fn scales(mut self, source: usize, link: usize) -> Result<Self> {
        self.taker(source, link, "multiply by")?.scaled = true;
        self.join(Edge { tensor: source, link, join: Join::Scale });
        Ok(self)
    }

    /// The convolution that is to take a second tensor, for what it `does` with that.
    fn taker(&mut self, source: usize, link: usize, does: &str) -> Result<&mut Conv2d> {
        let (count, wanted) = (self.links.len(), format!("is to {does} tensor {source}"));
        let message = match self.links.get_mut(link) {
            Some(Link::Conv(conv)) => match source <= link {
                true => return Ok(conv),
                false => format!("link {link} of {count} {wanted}; it can {does} tensors 0 to {link}"),
            },
            Some(other) => format!("link {link} of {count}, {}, {wanted}; only convolutions do", other.kind()),
            None => format!("link {link} of {count} {wanted}; the last link is {}", count.saturating_sub(1)),
        };
        Err(Error::Chain(message))
    }

    /// Adds an edge. It replaces one of the same kind to the same link.
    fn join(&mut self, edge: Edge) {
        self.rejoin(edge.link, edge.join, &[edge.tensor]);
    }

    /// Replaces the edges of a kind to a link by those from these tensors, in this order.
    pub(super) fn rejoin(&mut self, link: usize, join: Join, tensors: &[usize]) {
        self.edges.retain(|other| (other.link, other.join) != (link, join));
        let place = self.edges.partition_point(|other| other.link <= link);
        self.edges.splice(place..place, tensors.iter().map(|&tensor| Edge { tensor, link, join }));
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

    /// The chain for an input of one size: with [TensorFlow's padding](Conv2d::same_padding) if it is `same_padded`,
    /// and with resizes to the size of earlier tensors. `fitted` has the links of these, each with its tensor.
    pub(crate) fn sized(mut self, input: Shape, same_padded: bool, fitted: &[(usize, usize)]) -> Result<Self> {
        let mut shapes = vec![input];
        for index in 0..self.links.len() {
            let input = shapes[self.input_of(index)];
            match &mut self.links[index] {
                Link::Conv(conv) if same_padded => conv.padding = conv.same_padding(input),
                Link::Resize(resize) => {
                    let tensor =
                        fitted.iter().find(|(link, _)| *link == index).and_then(|&(_, tensor)| shapes.get(tensor));
                    resize.to = tensor.map_or(resize.to, |shape| ResizeTo::Size([shape.height, shape.width]));
                }
                _ => {}
            }
            shapes.push(self.links[index].output_shape(input)?);
        }
        Ok(self)
    }

    /// This chain, then another one on its output; tensor 0 of the other is that output. The element type is this
    /// one's.
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

    /// The types of the input and the output.
    pub(crate) fn ends(&self) -> [DType; 2] {
        ends(&self.links, self.dtype)
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
        self.links.iter().enumerate().flat_map(|(index, link)| link.convolutions().map(move |conv| (index, conv)))
    }

    /// Those of the items for the convolutions that are for the links of a range.
    pub(crate) fn of_links<T: Clone>(&self, links: &Range<usize>, items: &[T]) -> Vec<T> {
        let own = self.convolutions().zip(items).filter(|((link, _), _)| links.contains(link));
        own.map(|(_, item)| item.clone()).collect()
    }

    /// The links of a run as a chain of their own. A residual comes from outside, unless it is the run's input. So does
    /// a scale. A concatenation puts slices of the input together: see [`Chain::part_input`].
    pub(crate) fn part(&self, links: Range<usize>) -> Self {
        if let [Link::Concat(concat)] = &self.links[links.clone()] {
            return concat.of_slices().with_dtype(self.dtype);
        }
        let mut part = Self::new(self.links[links.clone()].to_vec()).with_dtype(self.dtype);
        for edge in &self.edges {
            match edge.join {
                Join::Add if self.adding(&links) == Some(edge.link) && edge.tensor == self.input_of(links.start) => {
                    part.join(Edge { tensor: 0, link: edge.link - links.start, ..*edge });
                }
                Join::Add | Join::Input | Join::Scale | Join::Concat => {}
            }
        }
        part
    }

    /// The shape of the input of [`Chain::part`]. `shapes` are those of all tensors of the chain.
    pub(crate) fn part_input(&self, links: &Range<usize>, shapes: &[Shape]) -> Shape {
        match self.links[links.start] {
            Link::Concat(_) => shapes[links.start + 1],
            _ => shapes[self.input_of(links.start)],
        }
    }

    /// The shapes of the tensors of some links in a row: of what the first reads, then of each link's output. `shapes`
    /// are those of all tensors of the chain.
    pub fn run_shapes(&self, links: Range<usize>, shapes: &[Shape]) -> Vec<Shape> {
        let tensors = std::iter::once(self.input_of(links.start)).chain(links.start + 1..=links.end);
        tensors.filter_map(|tensor| shapes.get(tensor).copied()).collect()
    }

    /// The tensor of this chain that link `link` adds, if any.
    pub fn source(&self, link: usize) -> Option<usize> {
        self.joined(link, Join::Add)
    }

    /// The link of a run that adds a residual, if one does: the last, or the one before a PReLU.
    pub(crate) fn adding(&self, run: &Range<usize>) -> Option<usize> {
        run.clone().rev().find(|&link| self.links[link].residual().is_some())
    }

    /// The tensor of this chain that a run adds, if any.
    pub(crate) fn added(&self, run: &Range<usize>) -> Option<usize> {
        self.source(self.adding(run)?)
    }

    /// The tensor that link `link` reads: the output of the link before, unless an edge says another.
    pub fn input_of(&self, link: usize) -> usize {
        self.joined(link, Join::Input).unwrap_or(link)
    }

    /// The tensor of this chain by which link `link` multiplies what it reads, if any.
    pub fn scale_of(&self, link: usize) -> Option<usize> {
        self.joined(link, Join::Scale)
    }

    fn joined(&self, link: usize, join: Join) -> Option<usize> {
        self.edges_of(link).find(|edge| edge.join == join).map(|edge| edge.tensor)
    }

    /// The link whose residual comes from outside the chain.
    pub fn outside_residual(&self) -> Option<usize> {
        self.outside_residuals().next()
    }

    /// The link whose scale comes from outside the chain.
    pub fn outside_scale(&self) -> Option<usize> {
        self.outside_scales().next()
    }

    /// The shape of the scale from outside, for the shapes of the chain's tensors.
    pub(crate) fn outside_scale_shape(&self, shapes: &[Shape]) -> Option<Shape> {
        self.outside_scale().map(|link| scale_shape(shapes[self.input_of(link)]))
    }

    fn outside_scales(&self) -> impl Iterator<Item = usize> {
        (0..self.links.len()).filter(|&link| self.links[link].is_scaled() && self.scale_of(link).is_none())
    }

    fn outside_residuals(&self) -> impl Iterator<Item = usize> {
        (0..self.links.len()).filter(|&link| self.links[link].residual().is_some() && self.source(link).is_none())
    }

    /// The shapes of all tensors, the input's first.
    ///
    /// # Errors
    /// [`Error::Chain`] for a chain without links, with two residuals or two scales from outside, with a gate on what
    /// was pooled already, or with a concatenation that is not given as many tensors as it has; what
    /// [`Link::output_shape`] says of each link; [`Error::ShapeMismatch`] for an edge.
    pub fn shapes(&self, input: impl Into<Shape>) -> Result<Vec<Shape>> {
        let input = input.into();
        if self.links.is_empty() {
            return Err(Error::Chain("it has no links".into()));
        }
        if self.outside_residuals().count() > 1 {
            return Err(Error::Chain("more than one link adds a residual from outside".into()));
        }
        if self.outside_scales().count() > 1 {
            return Err(Error::Chain("more than one link takes a scale from outside".into()));
        }
        let mut shapes = vec![input];
        for (index, link) in self.links.iter().enumerate() {
            let source = self.input_of(index);
            let input = shapes[source];
            self.check_gate(index, source, input)?;
            let output = link.output_shape(input).map_err(|error| match error {
                Error::Channels { expected, actual, .. } => Error::Channels { link: index, expected, actual },
                other => other,
            })?;
            self.check_concat(index, &shapes)?;
            for edge in self.edges_of(index) {
                match (edge.join, shapes[edge.tensor]) {
                    (Join::Add, actual) if actual == output => {}
                    (Join::Add, actual) => {
                        return Err(Error::ShapeMismatch { tensor: "residual", expected: output, actual });
                    }
                    (Join::Scale, actual) if actual != scale_shape(input) => {
                        return Err(Error::ShapeMismatch { tensor: "scale", expected: scale_shape(input), actual });
                    }
                    (Join::Scale | Join::Input | Join::Concat, _) => {}
                }
            }
            shapes.push(output);
        }
        Ok(shapes)
    }

    /// Refuses a gate on what a pool or a gate gives: it would take the mean of means.
    fn check_gate(&self, index: usize, source: usize, shape: Shape) -> Result<()> {
        let is_gate = |link: &Link| matches!(link, Link::SqueezeExcite(_));
        let is_pooled = |link: &Link| is_gate(link) || matches!(link, Link::GlobalAveragePool | Link::PlaneSum { .. });
        match source.checked_sub(1).map(|before| (before, &self.links[before])) {
            Some((before, link)) if is_gate(&self.links[index]) && is_pooled(link) => Err(Error::Chain(format!(
                "link {index} is a gate on tensor {source}, {shape}, which link {before}, {}, has pooled already",
                link.kind()
            ))),
            _ => Ok(()),
        }
    }
}

/// The shape of a scale for an input: a value for each image and channel.
pub(crate) fn scale_shape(input: Shape) -> Shape {
    Shape { height: 1, width: 1, ..input }
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

impl From<ConvTranspose2d> for Chain {
    fn from(transposed: ConvTranspose2d) -> Self {
        Self::new([transposed])
    }
}

impl From<PRelu> for Chain {
    fn from(prelu: PRelu) -> Self {
        Self::new([prelu])
    }
}

impl From<Resize> for Chain {
    fn from(resize: Resize) -> Self {
        Self::new([resize])
    }
}

impl From<Conv2d> for Chain {
    fn from(link: Conv2d) -> Self {
        Self::new([link])
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
    use crate::model::gate::SqueezeExcite;

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
        let conv = || Link::from(Conv2d::pointwise(4, 4));
        let chain = Chain::new([conv(), Link::GlobalAveragePool, SqueezeExcite::new(4, 2).into(), conv()]);
        let names = ["first", "squeeze", "excite", "last"];
        assert_eq!(chain.of_links(&(1..3), &names), ["squeeze", "excite"]);
        assert_eq!(chain.of_links(&(0..4), &names), names);
        assert!(chain.of_links(&(1..2), &names).is_empty());
    }

    #[test]
    fn what_a_link_reads_is_made_before_it_and_has_its_shape() {
        let links = || [Conv2d::new(4, 8, 3), Conv2d::new(4, 8, 3), Conv2d::pointwise(8, 8)];
        let chain = Chain::new(links());
        assert_eq!(chain.shapes([1, 4, 5, 5]), Err(Error::Channels { link: 1, expected: 4, actual: 8 }));
        let branches = chain.clone().reads(0, 1).unwrap().edge(1, 1, Residual::BeforeActivation).unwrap();
        assert_eq!(branches.shapes([1, 4, 5, 5]).unwrap()[2], [1, 8, 3, 3].into());
        assert_eq!([0, 1, 2].map(|link| branches.input_of(link)), [0, 0, 2]);
        // Back to the link before.
        assert_eq!(branches.clone().reads(1, 1).unwrap().edges(), [Edge { tensor: 1, link: 1, join: Join::Add }]);
        assert_eq!(branches.run_shapes(1..3, &branches.shapes([1, 4, 5, 5]).unwrap())[0], [1, 4, 5, 5].into());
        for (source, link) in [(2, 1), (0, 3), (4, 2)] {
            let error = chain.clone().reads(source, link).unwrap_err().to_string();
            assert!(
                error.contains(&format!("tensor {source}")) && error.contains(&format!("link {link} of 3")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_skip_from_a_later_link_or_to_no_convolution_is_refused_by_name() {
        let chain = Chain::new([Link::from(Conv2d::pointwise(4, 4)), Pool2d::max(2).into()]);
        for (source, link, said) in [
            (1, 0, "link 0 of 2 is to add tensor 1; it can add tensors 0 to 0"),
            (0, 1, "link 1 of 2, a max pool, is to add tensor 0; only convolutions do"),
            (0, 2, "link 2 of 2 is to add tensor 0; the last link is 1"),
        ] {
            let add = chain.clone().edge(source, link, Residual::BeforeActivation).unwrap_err();
            assert_eq!(add.to_string(), format!("not a chain: {said}"));
            let scale = chain.clone().scales(source, link).unwrap_err();
            assert_eq!(scale.to_string(), format!("not a chain: {}", said.replace(" add ", " multiply by ")));
        }
    }
}
