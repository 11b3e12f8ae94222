//! Warm-up: pipelines compiled before they are needed.

use std::collections::HashSet;

use crate::model::chain::Chain;
use crate::model::error::Result;
use crate::model::shape::{Layout, Shape};
use crate::planner::{self, Choice, Schedule};
#[cfg(not(target_arch = "wasm32"))]
use crate::runtime::first_run::dispatch_once;
use crate::runtime::gpu::GpuConv;
use crate::runtime::threads;

impl GpuConv {
    /// Compiles the shaders of schedules. Where the driver refuses one, schedules are made again without it. On native
    /// devices it takes all threads, its own included.
    pub(crate) async fn compile_ahead(&self, schedules: impl Fn() -> Result<Vec<Schedule>>) -> Result<()> {
        self.shared().check_lost()?;
        loop {
            let refused = self.shared().refused().len();
            let outcome = match schedules() {
                Ok(schedules) => self.compile_all(schedules).await,
                Err(error) => Err(error),
            };
            if outcome.is_ok() || self.shared().refused().len() == refused {
                return outcome;
            }
        }
    }

    async fn compile_all(&self, schedules: Vec<Schedule>) -> Result<()> {
        let (mut passes, mut seen) = (Vec::new(), HashSet::new());
        for recipe in schedules.into_iter().flat_map(|schedule| schedule.steps).map(|step| step.recipe) {
            for mut pass in recipe.passes {
                let wgsl = pass.wgsl.text()?;
                if seen.insert(wgsl.clone()) {
                    pass.wgsl = wgsl.into();
                    passes.push((recipe.name.clone(), pass));
                }
            }
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
        let schedules = move || {
            let mut schedules = Vec::new();
            for (chain, input, layout) in &chains {
                for band in planner::band_inputs(chain, *input, planning.caps())? {
                    schedules.push(planning.schedule(chain, band, *layout, &Choice::Auto)?);
                }
            }
            Ok(schedules)
        };
        threads::apart("gpuconv warm-up", move || async move { gpu.compile_ahead(schedules).await })
    }
}
