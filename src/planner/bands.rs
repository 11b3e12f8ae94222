//! Bands: parts of a batch, computed one after the other if its tensors do not fit into one binding.

use crate::model::caps::Caps;
use crate::model::chain::Chain;
use crate::model::error::{Error, Result};
use crate::model::shape::Shape;

/// How many images of a batch are computed at a time: all of them, or as many as fit. Then each tensor of the chain
/// fits into one binding, and each band starts at an offset that a binding may have. Layers compute what this refuses
/// as [`divide`](crate::planner::divide) says.
///
/// # Errors
/// What [`Chain::shapes`] says; [`Error::TooLarge`] if a tensor is larger than a buffer, if not even one image fits, or
/// too few for bands to start at aligned offsets.
pub fn images_at_once(chain: &Chain, input: impl Into<Shape>, caps: &Caps) -> Result<u32> {
    let input = input.into();
    let shapes = chain.shapes(input)?;
    let (limit, dtype) = (largest_binding(caps), chain.dtype());
    if shapes.iter().all(|shape| shape.bytes(dtype) <= limit) {
        return Ok(input.batch);
    }
    let image = |shape: &Shape| Shape { batch: 1, ..*shape }.bytes(dtype);
    let residual = chain.outside_residual().map(|link| shapes[link + 1]);
    let others = residual.into_iter().chain(chain.outside_scale_shape(&shapes));
    let outer: Vec<_> = [shapes[0], shapes[shapes.len() - 1]].into_iter().chain(others).collect();
    let (alignment, batch) = (u64::from(caps.storage_offset_alignment), u64::from(input.batch));
    let steps = outer.iter().map(|shape| step(image(shape), alignment));
    // As powers of two the larger is a multiple of the other.
    let step = steps.max().unwrap_or(1).min(batch);
    for shape in outer {
        let needed = shape.bytes(dtype);
        if needed > caps.max_buffer {
            return Err(Error::TooLarge {
                what: format!("a tensor of {shape}, in bytes,"),
                needed,
                limit: caps.max_buffer,
            });
        }
        if image(&shape) * step > limit {
            let images = Shape { batch: step as u32, ..shape };
            let what = format!("a binding of {images}, in bytes,");
            return Err(Error::TooLarge { what, needed: images.bytes(dtype), limit });
        }
    }
    // Tensors between links may be larger: the planner may find a kernel that keeps them out of memory.
    let most = shapes.iter().map(|shape| limit / image(shape).max(1)).min().unwrap_or(1).min(batch);
    Ok((most / step * step).max(step) as u32)
}

/// The input shapes of bands: of all but the last, and of the last if it has fewer images.
///
/// # Errors
/// As [`images_at_once`].
pub fn band_inputs(chain: &Chain, input: Shape, caps: &Caps) -> Result<Vec<Shape>> {
    let at_once = images_at_once(chain, input, caps)?;
    let rest = input.batch.checked_rem(at_once).filter(|&rest| rest > 0);
    Ok([at_once].into_iter().chain(rest).map(|batch| Shape { batch, ..input }).collect())
}

/// The largest storage binding, bytes.
pub fn largest_binding(caps: &Caps) -> u64 {
    caps.max_storage_binding.min(caps.max_buffer)
}

/// The least power of two of images of `image` bytes that takes a multiple of the alignment, itself a power of two.
pub fn step(image: u64, alignment: u64) -> u64 {
    let mut step = alignment.max(1);
    while step.is_multiple_of(2) && image.wrapping_mul(step / 2).is_multiple_of(alignment.max(1)) {
        step /= 2;
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::conv::Conv2d;

    fn caps(limit: u64) -> Caps {
        Caps { max_storage_binding: limit, ..Caps::webgpu() }
    }

    fn at_once(conv: Conv2d, input: [u32; 4], limit: u64) -> Result<u32> {
        images_at_once(&conv.into(), input, &caps(limit))
    }

    #[test]
    fn bands_worked_out_by_hand() {
        // Images of 1024 bytes in, 512 out.
        let conv = || Conv2d::pointwise(4, 2);
        assert_eq!(at_once(conv(), [10, 4, 8, 8], 10240), Ok(10));
        assert_eq!(at_once(conv(), [10, 4, 8, 8], 10239), Ok(9));
        assert_eq!(at_once(conv(), [10, 4, 8, 8], 1024), Ok(1));
        // Outputs are the larger ones.
        assert_eq!(at_once(Conv2d::pointwise(2, 4), [10, 2, 8, 8], 3000), Ok(2));
        let too_large = at_once(conv(), [10, 4, 8, 8], 1023);
        assert!(matches!(too_large, Err(Error::TooLarge { needed: 1024, limit: 1023, .. })), "{too_large:?}");
        // Images of 60 bytes: each 64th starts at a multiple of 256.
        let odd = || Conv2d::pointwise(1, 1);
        assert_eq!(at_once(odd(), [200, 1, 5, 3], 60 * 130), Ok(128));
        assert_eq!(at_once(odd(), [200, 1, 5, 3], 60 * 64), Ok(64));
        let too_large = at_once(odd(), [200, 1, 5, 3], 60 * 64 - 1);
        assert!(matches!(too_large, Err(Error::TooLarge { needed: 3840, limit: 3839, .. })), "{too_large:?}");
        // The device has no buffer for 20 images.
        let caps = Caps { max_buffer: 20 * 1024 - 1, ..caps(10240) };
        let too_large = images_at_once(&conv().into(), [20, 4, 8, 8], &caps);
        assert!(matches!(too_large, Err(Error::TooLarge { needed: 20480, limit: 20479, .. })), "{too_large:?}");
        // The step of the output counts as well: 48 and 192 bytes, 16 and 4 images.
        assert_eq!(at_once(Conv2d::pointwise(4, 1), [100, 4, 4, 3], 192 * 50), Ok(48));
    }

    #[test]
    fn tensors_inside_count_as_far_as_one_image() {
        let chain = Chain::from(Conv2d::pointwise(1, 16)).then(Conv2d::pointwise(16, 1));
        // 256, 4096 and 256 bytes an image.
        let at_once = |limit| images_at_once(&chain, [8, 1, 8, 8], &caps(limit));
        assert_eq!([at_once(4096 * 8), at_once(4096 * 8 - 1), at_once(4096), at_once(1000)], [8, 7, 1, 1].map(Ok));
    }
}
