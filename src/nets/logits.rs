//! From logits to an answer, on the host: a thousand numbers are not worth a dispatch.

/// The probability of each class: `exp(x) / Σ exp(x)`, in f64, shifted so that nothing overflows.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<_> = logits.iter().map(|&logit| (f64::from(logit) - f64::from(largest)).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}

/// The largest `count` values with their places, the largest first; of equals the one that comes first.
pub fn top(values: &[f32], count: usize) -> Vec<(usize, f32)> {
    let mut order: Vec<_> = values.iter().copied().enumerate().collect();
    // The sort is stable, so equals stay in order.
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_worked_out_by_hand() {
        assert_eq!(softmax(&[0.0, 0.0, f32::NEG_INFINITY, 0.0, 0.0]), [0.25, 0.25, 0.0, 0.25, 0.25]);
        let [low, high] = softmax(&[1000.0, 1001.0])[..] else { panic!() };
        assert_eq!((low, high), (0.268_941_43, 0.731_058_6));
        assert!(softmax(&[]).is_empty());
    }

    #[test]
    fn the_largest_come_first_and_equals_in_order() {
        assert_eq!(top(&[1.0, 3.0, -2.0, 3.0], 3), [(1, 3.0), (3, 3.0), (0, 1.0)]);
        assert_eq!(top(&[1.0], 5), [(0, 1.0)]);
    }
}
