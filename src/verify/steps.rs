//! The steps of a schedule, each judged alone.

use std::sync::Arc;

use super::judge::judge;
use super::trial::Trial;
use super::{Data, Oracle, Part, Report};
use crate::model::chain::{Chain, Link};
use crate::model::error::{Error, Result};
use crate::model::pool::Pool2d;
use crate::model::shape::Shape;
use crate::planner::{self, Choice, Schedule, Step};
use crate::runtime::device::lock;
use crate::runtime::gpu::GpuConv;

impl Oracle {
    /// Runs each step alone, on random numbers, and judges its outputs. Gives those of the last step.
    pub(super) async fn judge_steps(
        &self,
        gpu: &GpuConv,
        schedule: &Schedule,
        report: &mut Report,
    ) -> Result<Vec<f32>> {
        let shapes = self.chain.shapes(self.input)?;
        // The device's tensors; one inside of a step is never in memory.
        let mut tensors = vec![None; shapes.len()];
        tensors[0] = Some(self.random.input.clone());
        for (index, step) in schedule.steps.iter().enumerate() {
            let links = step.first..step.first + step.links;
            let (chain, data) = (self.chain.part(links.clone()), self.data_of(step, &tensors)?);
            let input = self.chain.part_input(&links, &shapes);
            // Its tensors are all its own.
            let is_plain = !schedule.workspace.has_views(index);
            let alone = self.alone(gpu, &chain, input, step, is_plain)?;
            let trial = Trial { chain: &chain, input, layout: self.layout, data: &data };
            let values = trial.run(gpu, &alone, report).await?;
            let part = Part { chain: &chain, input, data: &data };
            let known = lock(&self.answers).get(&step.links).filter(|_| step.first == 0).cloned();
            let answer = match known {
                Some(answer) => answer,
                None => Arc::new(part.answer(self.most)?),
            };
            if step.first == 0 {
                lock(&self.answers).insert(step.links, answer.clone());
            }
            let steps = std::slice::from_ref(step);
            match part.sample(self.most)? {
                Some(sample) => judge(&sample.select(&values), &answer, &chain, steps, report),
                None => judge(&values, &answer, &chain, steps, report),
            }
            tensors[links.end] = Some(values);
            for link in step.recipe.kept() {
                let values = self.judge_kept(gpu, &part, step, link, is_plain, report).await?;
                tensors[links.start + link + 1] = Some(values);
            }
        }
        tensors.pop().flatten().ok_or_else(|| no_tensor(shapes.len() - 1))
    }

    /// Judges what a step has stored of a link that is not its last, and gives it. The step runs once more, and a link
    /// behind it copies that tensor.
    async fn judge_kept(
        &self,
        gpu: &GpuConv,
        part: &Part<'_>,
        step: &Step,
        link: usize,
        is_plain: bool,
        report: &mut Report,
    ) -> Result<Vec<f32>> {
        let copied = part.chain.clone().then(Pool2d::max(1)).reads(link + 1, step.links)?;
        let choice = Choice::Named(format!("{}+window_pool", step.recipe.name));
        let mut schedule = planner::schedule(&copied, part.input, self.layout, gpu.caps(), &choice)?;
        if is_plain {
            // The step's own shaders.
            schedule.steps[0].recipe = step.recipe.clone();
        }
        let trial = Trial { chain: &copied, input: part.input, layout: self.layout, data: part.data };
        let values = trial.run(gpu, &schedule, report).await?;
        let before = part.chain.part(0..link + 1);
        let data = Data {
            input: part.data.input.clone(),
            weights: part.chain.of_links(&(0..link + 1), &part.data.weights),
            residual: None,
            scale: part.data.scale.clone(),
        };
        let alone = Part { chain: &before, input: part.input, data: &data };
        let compared = alone.sample(self.most)?.map(|sample| sample.select(&values));
        let answer = alone.answer(self.most)?;
        let compared = compared.as_ref().unwrap_or(&values);
        judge(compared, &answer, &before, std::slice::from_ref(step), report);
        Ok(values)
    }

    /// The schedule that computes a step alone, by its own shaders if they are made for tensors of its own.
    fn alone(&self, gpu: &GpuConv, chain: &Chain, input: Shape, step: &Step, is_plain: bool) -> Result<Schedule> {
        let is_whole = chain.links().len() == step.links && !step.recipe.passes.is_empty();
        let choice = match is_whole {
            true if is_plain => return Ok(Schedule::of_one(chain, &chain.shapes(input)?, &step.recipe, gpu.caps())),
            true => {
                // A name alone could be that of a part of it, as of a convolution without the PReLU behind it.
                let planned = planner::schedule(chain, input, self.layout, gpu.caps(), &Choice::Auto)?;
                let whole = planned.considered.iter().filter(|considered| considered.links == step.links);
                let mut recipes = whole.flat_map(|considered| considered.answer.iter().flatten());
                if let Some(own) = recipes.find(|candidate| candidate.recipe.name == step.recipe.name) {
                    return Ok(Schedule::of_one(chain, &chain.shapes(input)?, &own.recipe, gpu.caps()));
                }
                Choice::Named(step.recipe.name.clone())
            }
            // What a step finds in place, and a concatenation behind the slices that it puts together. It copies all.
            false => Choice::Auto,
        };
        planner::schedule(chain, input, self.layout, gpu.caps(), &choice)
    }

    /// The data of a step.
    fn data_of(&self, step: &Step, tensors: &[Option<Vec<f32>>]) -> Result<Data> {
        let links = step.first..step.first + step.links;
        let weights = self.chain.of_links(&links, &self.random.weights);
        let input = self.chain.input_of(links.start);
        let tensor = |index: usize| tensors[index].clone().ok_or_else(|| no_tensor(index));
        let adding = self.chain.adding(&links);
        let residual = match self.chain.added(&links) {
            // The part has that edge itself.
            Some(source) if source == input => None,
            Some(source) => Some(tensor(source)?),
            None => adding.and(self.random.residual.clone()),
        };
        let scale = match self.chain.scale_of(links.start) {
            Some(source) => Some(tensor(source)?),
            None if self.chain.outside_scale() == Some(links.start) => self.random.scale.clone(),
            None => None,
        };
        let input = match self.chain.links()[links.start] {
            Link::Concat(_) => {
                let parts = self.chain.concatenated(links.start).into_iter().map(tensor);
                last_first(&parts.collect::<Result<Vec<_>>>()?, self.input.batch as usize)
            }
            _ => tensor(input)?,
        };
        Ok(Data { input, weights, residual, scale })
    }
}

/// Tensors as one, NCHW, the channels of the last first: what a concatenation alone takes slices of.
fn last_first(tensors: &[Vec<f32>], images: usize) -> Vec<f32> {
    let image = move |image: usize| {
        tensors.iter().rev().flat_map(move |values| {
            let len = values.len() / images;
            &values[image * len..][..len]
        })
    };
    (0..images).flat_map(image).copied().collect()
}

fn no_tensor(index: usize) -> Error {
    Error::Internal(format!("no step of the schedule ends at tensor {index}, which a later step reads"))
}
