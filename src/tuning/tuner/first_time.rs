//! The first time of a candidate, which all later ones are compared with.

use crate::model::error::{Error, Result};
use crate::runtime::layer::BoundLayer;
use crate::runtime::timer::Timer;

/// The least time that counts, seconds: ten steps of the clock and more. A browser rounds to a tenth of a millisecond,
/// and there a short run takes no time at all.
const LEAST: f64 = if cfg!(target_arch = "wasm32") { 1e-3 } else { 1e-5 };
/// The most runs for it.
const MOST: u32 = 1000;

/// The seconds of one run of a layer, from as many runs as it takes until the clock tells them from nothing.
///
/// # Errors
/// What the device says, and if its clock stands still.
pub async fn first_time(timer: &Timer, layer: &BoundLayer) -> Result<f64> {
    // A driver may compile at the first run.
    timer.layer_async(layer, 1).await?;
    let mut runs = 1;
    loop {
        let seconds = timer.layer_async(layer, runs).await?;
        if counts(seconds, runs)? {
            return Ok(seconds);
        }
        runs *= 10;
    }
}

/// Whether there were enough runs for their mean time to count.
fn counts(seconds: f64, runs: u32) -> Result<bool> {
    match runs < MOST {
        true => Ok(seconds * f64::from(runs) >= LEAST),
        false if seconds > 0.0 => Ok(true),
        false => Err(Error::Driver(format!("{runs} runs take no time by the device's clock"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one run takes by a clock of these steps, seconds, and the runs that count.
    fn measured(true_time: f64, step: f64) -> Result<(f64, u32)> {
        let mut runs = 1;
        loop {
            let seconds = (true_time * f64::from(runs) / step).floor() * step / f64::from(runs);
            if counts(seconds, runs)? {
                return Ok((seconds, runs));
            }
            runs *= 10;
        }
    }

    #[test]
    fn a_coarse_clock_gives_a_time() {
        for true_time in [1e-7, 3e-6, 9.9e-6, 1e-5, 0.4] {
            for step in [1e-9, 1e-6] {
                let (time, _) = measured(true_time, step).unwrap();
                assert!((time / true_time - 1.0).abs() < 0.11, "{true_time} by {step}");
            }
        }
    }

    #[test]
    fn one_run_is_enough_if_it_takes_long() {
        assert_eq!(measured(0.125, 1e-9).unwrap().1, 1);
    }

    #[test]
    fn a_clock_that_stands_still_is_an_error() {
        assert!(matches!(measured(1e-4, 1.0), Err(Error::Driver(_))));
    }
}
