//! Warm-up: pipelines compiled before they are needed.

use std::collections::HashSet;

use crate::kernels::copy;
use crate::model::chain::Chain;
use crate::model::error::Result;
use crate::model::shape::{Layout, Shape};
use crate::planner::{Choice, Division, Pass};
#[cfg(not(target_arch = "wasm32"))]
use crate::runtime::first_run::dispatch_once;
use crate::runtime::gpu::GpuConv;
use crate::runtime::threads;

impl GpuConv {
    /// Compiles the shaders of divisions. Where the driver refuses one, divisions are made again without it. On native
    /// devices it takes all threads, its own included.
    pub(crate) async fn compile_ahead(&self, divisions: impl Fn() -> Result<Vec<Division>>) -> Result<()> {
        self.shared().check_lost()?;
        loop {
            let refused = self.shared().refused().len();
            let outcome = match divisions() {
                Ok(divisions) => self.compile_all(divisions).await,
                Err(error) => Err(error),
            };
            if outcome.is_ok() || self.shared().refused().len() == refused {
                return outcome;
            }
        }
    }

    async fn compile_all(&self, divisions: Vec<Division>) -> Result<()> {
        let (mut passes, mut seen) = (Vec::new(), HashSet::new());
        let mut add = |name: &str, pass: Pass| -> Result<()> {
            let wgsl = pass.wgsl.text()?;
            if seen.insert(wgsl.clone()) {
                passes.push((name.to_string(), Pass { wgsl: wgsl.into(), ..pass }));
            }
            Ok(())
        };
        for division in divisions {
            for recipe in division.kinds.iter().flat_map(|kind| &kind.schedule.steps).map(|step| &step.recipe) {
                recipe.passes.iter().try_for_each(|pass| add(&recipe.name, pass.clone()))?;
            }
            division.copy_passes().into_iter().try_for_each(|pass| add(copy::NAME, pass))?;
        }
        threads::each(&passes, async |(name, pass)| self.shared().pipeline(name, pass).await.map(|_| ())).await?;
        #[cfg(not(target_arch = "wasm32"))]
        if self.device().adapter_info().device_type == wgpu::DeviceType::Cpu {
            dispatch_once(self, passes)?;
        }
        Ok(())
    }

    /// As [`GpuConv::warm_up`], on threads of its own: the caller's go on meanwhile, and the future is
    /// `Send`. In a browser, which has no threads, it starts when it is first polled.
    ///
    /// # Errors
    /// As [`GpuConv::warm_up`].
    pub fn warm_up_async<S: Into<Shape> + Copy + Send + 'static>(
        &self,
        chains: Vec<(Chain, S, Layout)>,
    ) -> impl Future<Output = Result<()>> + use<S> {
        let chains: Vec<_> = chains.into_iter().map(|(chain, input, layout)| (chain, input.into(), layout)).collect();
        let (gpu, planning) = (self.clone(), self.clone());
        let divisions = move || {
            let divide = |(chain, input, layout): &(Chain, Shape, Layout)| {
                planning.divide(chain, *input, *layout, &Choice::Auto)
            };
            chains.iter().map(divide).collect()
        };
        threads::apart("gpuconv warm-up", move || async move { gpu.compile_ahead(divisions).await })
    }
}
