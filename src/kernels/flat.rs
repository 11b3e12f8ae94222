//! Images so narrow that rows of blocks would be mostly empty, as single rows: the same convolutions of the same
//! memory.

use super::Run;
use crate::model::chain::Link;
use crate::model::conv::Conv2d;
use crate::model::shape::Shape;

/// Rows as wide as this fill most of any block.
const WIDE: u32 = 8;

/// The links and shapes of a run of narrow images whose kernels are columns, as those of images with a single row: a
/// column of taps is then a row of taps that are a row of the image apart. Weights and tensors lie in memory as before.
/// None if the run is no such.
pub fn of(run: &Run<'_>) -> Option<(Vec<Link>, Vec<Shape>)> {
    let width = run.input().width;
    let convs: Vec<_> = run.links.iter().map(|link| link.conv()).collect::<Option<_>>()?;
    if width >= WIDE || run.input().height <= width || convs.iter().all(|conv| conv.kernel_size[0] == 1) {
        return None;
    }
    let links = convs.iter().map(|conv| flat_link(conv, width).map(Link::from)).collect::<Option<_>>()?;
    let shapes = run.shapes.iter().map(|&shape| flat_shape(shape)).collect::<Option<_>>()?;
    Some((links, shapes))
}

fn flat_link(conv: &Conv2d, width: u32) -> Option<Conv2d> {
    let ([taps, columns], [top, left, bottom, right]) = (conv.kernel_size, conv.padding);
    let [stride, _] = conv.stride;
    // Rows that are left out are whole columns only in an image of one column. Depthwise kernels walk down columns
    // anyway.
    let keeps_pixels = width == 1 || (conv.stride == [1, 1] && !conv.is_depthwise());
    if columns != 1 || [left, right] != [0, 0] || !keeps_pixels {
        return None;
    }
    Some(Conv2d {
        kernel_size: [1, taps],
        stride: [1, stride],
        padding: [0, top.checked_mul(width)?, 0, bottom.checked_mul(width)?],
        dilation: [1, conv.dilation[0].checked_mul(width)?],
        ..conv.clone()
    })
}

fn flat_shape(shape: Shape) -> Option<Shape> {
    Some(Shape { height: 1, width: shape.height.checked_mul(shape.width)?, ..shape })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::elements::Elements;
    use crate::model::shape::Layout;

    /// What a link on an image becomes.
    fn flat(conv: Conv2d, input: [u32; 4]) -> Option<(Conv2d, Vec<Shape>)> {
        let shapes = [input.into(), conv.output_shape(input).unwrap()];
        let links = [conv.into()];
        let run = Run { links: &links, shapes: &shapes, layout: Layout::Nchw, elements: Elements::F32 };
        let (links, shapes) = of(&run)?;
        Some((links[0].conv().unwrap().clone(), shapes))
    }

    #[test]
    fn shapes_are_those_that_the_flat_link_has() {
        let column = |taps: u32| Conv2d::new(4, 6, [taps, 1]);
        for (conv, input) in [
            (column(3).padding([1, 0, 1, 0]), [1, 4, 33, 1]),
            (column(5).padding([0, 0, 3, 0]).stride([2, 1]), [2, 4, 33, 1]),
            (column(5).padding([2, 0, 1, 0]).dilation([3, 1]), [2, 4, 33, 5]),
            (Conv2d::depthwise(4, [3, 1]).stride([2, 1]), [1, 4, 9, 1]),
        ] {
            let (link, shapes) = flat(conv, input).unwrap();
            assert_eq!(link.output_shape(shapes[0]).unwrap(), shapes[1], "{link:?}");
        }
    }

    #[test]
    fn runs_whose_columns_meet_stay_as_they_are() {
        let column = Conv2d::new(4, 6, [3, 1]);
        for (conv, input) in [
            (Conv2d::new(4, 6, [3, 3]).padding(1), [1, 4, 33, 1]),
            (column.clone().padding([1, 1, 1, 0]), [1, 4, 33, 1]),
            (column.clone().stride([2, 1]), [1, 4, 33, 2]),
            (column.clone().stride([1, 2]), [1, 4, 33, 3]),
            (column.clone(), [1, 4, 33, 8]),
            (column, [1, 4, 5, 5]),
            (Conv2d::depthwise(4, [3, 1]), [1, 4, 33, 2]),
            (Conv2d::pointwise(4, 6), [1, 4, 33, 1]),
        ] {
            assert!(flat(conv.clone(), input).is_none(), "{conv:?}");
        }
    }
}
