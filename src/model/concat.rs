//! Links of channels: tensors put together, and a part of one.

use std::ops::Range;

use crate::model::chain::{Chain, Join, Link};
use crate::model::error::{Error, Result};
use crate::model::shape::Shape;

/// Several tensors as one, the channels of each behind those of the one before: `torch.cat(tensors, 1)`. Which tensors
/// they are, [`Chain::concatenates`] says.
///
/// ```
/// use gpuconv::{Chain, Concat, Conv2d, Link};
/// // Two convolutions of a tensor, and that tensor.
/// let branch = |kernel: u32| Link::from(Conv2d::new(8, 4, kernel).padding(kernel / 2));
/// let chain = Chain::new([branch(1), branch(3), Concat::new([4, 4, 8]).into()]);
/// let chain = chain.reads(0, 1)?.concatenates([1, 2, 0], 2)?;
/// assert_eq!(chain.shapes([1, 8, 5, 5])?[3], [1, 16, 5, 5].into());
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concat {
    /// The channels of each tensor, in order.
    pub channels: Vec<u32>,
}

impl Concat {
    /// Of tensors with these numbers of channels.
    pub fn new(channels: impl IntoIterator<Item = u32>) -> Self {
        Self { channels: channels.into_iter().collect() }
    }

    /// The channels of all.
    pub(crate) fn sum(&self) -> u32 {
        self.channels.iter().fold(0, |sum, &channels| sum.saturating_add(channels))
    }

    /// The output's shape for that of the first tensor.
    ///
    /// # Errors
    /// [`Error::Parameter`] without tensors, or if one has no channels; [`Error::Channels`] if the first has others;
    /// [`Error::EmptyInput`]; [`Error::TooLarge`].
    pub fn output_shape(&self, input: impl Into<Shape>) -> Result<Shape> {
        let (input, at_least_one) = (input.into(), || "at least 1".into());
        let Some(&first) = self.channels.first() else {
            let name = "the number of concatenated tensors";
            return Err(Error::Parameter { name, value: 0, expected: at_least_one() });
        };
        if self.channels.contains(&0) {
            let name = "the number of channels of a concatenated tensor";
            return Err(Error::Parameter { name, value: 0, expected: at_least_one() });
        }
        if input.channels != first {
            return Err(Error::Channels { link: 0, expected: first, actual: input.channels });
        }
        if input.pixels() == 0 {
            return Err(Error::EmptyInput { shape: input });
        }
        let output = Shape { channels: self.sum(), ..input };
        output.check_indexable("output")?;
        Ok(output)
    }

    /// A chain that concatenates slices of its input, which has the channels of all: the first tensor has the last of
    /// them.
    pub(crate) fn of_slices(&self) -> Chain {
        let mut end = self.sum();
        let mut links = Vec::new();
        for &channels in &self.channels {
            let first = end.saturating_sub(channels);
            links.push(Link::Slice { channels: first..end });
            end = first;
        }
        let count = links.len();
        links.push(self.clone().into());
        let mut chain = Chain::new(links);
        for link in 1..count {
            chain.rejoin(link, Join::Input, &[0]);
        }
        if count > 1 {
            chain.rejoin(count, Join::Input, &[1]);
            chain.rejoin(count, Join::Concat, &(2..=count).collect::<Vec<_>>());
        }
        chain
    }
}

/// The shape of a slice of channels.
///
/// # Errors
/// [`Error::EmptyInput`], [`Error::Slice`] and [`Error::TooLarge`].
pub fn sliced(input: Shape, channels: &Range<u32>) -> Result<Shape> {
    if input.channels == 0 || input.pixels() == 0 {
        return Err(Error::EmptyInput { shape: input });
    }
    if channels.is_empty() || channels.end > input.channels {
        return Err(Error::Slice { first: channels.start, end: channels.end, shape: input });
    }
    input.check_indexable("input")?;
    Ok(Shape { channels: channels.end - channels.start, ..input })
}

impl Chain {
    /// Has link `link`, a [`Concat`], put these tensors together, in this order: 0 is the chain's input, `i + 1` link
    /// `i`'s output. A tensor may come several times.
    ///
    /// # Errors
    /// [`Error::Chain`] unless the link is a concatenation of as many tensors, all made before it.
    pub fn concatenates(self, sources: impl IntoIterator<Item = usize>, link: usize) -> Result<Self> {
        let sources: Vec<usize> = sources.into_iter().collect();
        let wanted = match self.links().get(link) {
            Some(Link::Concat(concat)) => concat.channels.len(),
            _ => 0,
        };
        match sources[..] {
            [first, ref others @ ..] if sources.len() == wanted && sources.iter().all(|&source| source <= link) => {
                let mut chain = self.reads(first, link)?;
                chain.rejoin(link, Join::Concat, others);
                Ok(chain)
            }
            _ => Err(Error::Chain(format!(
                "link {link} of {} is to concatenate tensors {sources:?}; it must be a concatenation of as many, and all made \
                 before it",
                self.links().len()
            ))),
        }
    }

    /// The tensors that link `link` puts together, in order: of another link than a [`Concat`] the one that it reads.
    pub fn concatenated(&self, link: usize) -> Vec<usize> {
        let others = self.edges_of(link).filter(|edge| edge.join == Join::Concat).map(|edge| edge.tensor);
        std::iter::once(self.input_of(link)).chain(others).collect()
    }

    /// Refuses a concatenation whose tensors are not as many as it says, or not of its channels and a common size.
    /// `shapes` are those of the tensors before the link.
    pub(super) fn check_concat(&self, link: usize, shapes: &[Shape]) -> Result<()> {
        let Link::Concat(concat) = &self.links()[link] else { return Ok(()) };
        let (tensors, count) = (self.concatenated(link), concat.channels.len());
        if tensors.len() != count {
            return Err(Error::Chain(format!(
                "link {link} concatenates {count} tensors, but is given {}",
                tensors.len()
            )));
        }
        let first = shapes[tensors[0]];
        for (tensor, &channels) in tensors.into_iter().zip(&concat.channels) {
            let (expected, actual) = (Shape { channels, ..first }, shapes[tensor]);
            if actual != expected {
                return Err(Error::ShapeMismatch { tensor: "concatenated tensor", expected, actual });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain::Edge;
    use crate::model::conv::Conv2d;

    #[test]
    fn a_concatenation_of_slices_reads_the_last_channels_first() {
        let chain = Concat::new([3, 1, 4]).of_slices();
        let slices: Vec<_> = [5..8, 4..5, 0..4].into_iter().map(|channels| Link::Slice { channels }).collect();
        assert_eq!(chain.links()[..3], slices);
        assert_eq!((chain.concatenated(3), chain.concatenated(2)), (vec![1, 2, 3], vec![0]));
        assert_eq!(chain.shapes([2, 8, 5, 3]).unwrap()[4], [2, 8, 5, 3].into());
        // Of one tensor too.
        let one = Concat::new([8]).of_slices();
        assert_eq!((one.edges(), one.shapes([1, 8, 1, 1]).unwrap().len()), (&[][..], 3));
    }

    #[test]
    fn tensors_stay_in_order_and_may_come_twice() {
        let links = || [Conv2d::pointwise(4, 4).into(), Link::from(Concat::new([4, 4, 4]))];
        let chain = Chain::new(links()).concatenates([1, 0, 1], 1).unwrap();
        let edge = |tensor| Edge { tensor, link: 1, join: Join::Concat };
        assert_eq!((chain.edges(), chain.concatenated(1)), (&[edge(0), edge(1)][..], vec![1, 0, 1]));
        // Others replace them, and move with their links.
        let chain = chain.concatenates([0, 0, 1], 1).unwrap();
        assert_eq!(chain.concatenated(1), [0, 0, 1]);
        let chain = Chain::from(Conv2d::pointwise(2, 4)).then(chain);
        assert_eq!((chain.concatenated(2), chain.shapes([1, 2, 3, 3]).unwrap()[3].channels), (vec![1, 1, 2], 12));
    }

    #[test]
    fn what_cannot_be_put_together_is_refused_with_both_shapes() {
        let links = |channels: [u32; 2]| [Conv2d::new(4, 6, 3).into(), Link::from(Concat::new(channels))];
        let refused = |channels| {
            let chain = Chain::new(links(channels)).concatenates([0, 1], 1).unwrap();
            chain.shapes([1, 4, 8, 8]).unwrap_err()
        };
        let (tensor, expected) = ("concatenated tensor", [1, 6, 8, 8].into());
        assert_eq!(refused([4, 6]), Error::ShapeMismatch { tensor, expected, actual: [1, 6, 6, 6].into() });
        let message = refused([4, 6]).to_string();
        assert!(message.contains("1x6x8x8") && message.contains("1x6x6x6"), "{message}");
        assert_eq!(refused([5, 6]), Error::Channels { link: 1, expected: 5, actual: 4 });
        assert!(matches!(refused([4, 0]), Error::Parameter { value: 0, .. }));
        let alone = Chain::new(links([6, 4])).shapes([1, 4, 8, 8]).unwrap_err().to_string();
        assert!(alone.contains("2 tensors") && alone.contains("given 1"), "{alone}");
        for (sources, link) in [(&[0, 2][..], 1), (&[0][..], 1), (&[0, 0][..], 0), (&[][..], 1)] {
            let error = Chain::new(links([4, 4])).concatenates(sources.iter().copied(), link).unwrap_err();
            assert!(error.to_string().contains(&format!("{sources:?}")), "{error}");
        }
        assert!(matches!(Concat::new([]).output_shape([1, 1, 1, 1]), Err(Error::Parameter { .. })));
        assert!(matches!(Concat::new([1, u32::MAX]).output_shape([1, 1, 1, 1]), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn a_slice_is_of_channels_that_there_are() {
        let input = Shape::from([2, 8, 5, 3]);
        assert_eq!((sliced(input, &(2..7)), sliced(input, &(0..8))), (Ok([2, 5, 5, 3].into()), Ok(input)));
        for (first, end) in [(3, 3), (5, 3), (2, 9), (8, 9)] {
            assert_eq!(sliced(input, &(first..end)), Err(Error::Slice { first, end, shape: input }));
        }
    }
}
