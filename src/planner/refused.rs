//! Shaders that a driver refused: plans do without them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::kernels::Recipe;

/// Texts of shaders that a driver did not compile, by the names of their recipes. Only for a recipe of such a name must
/// text be rendered and compared.
#[derive(Clone, Debug, Default)]
pub struct Refused(HashMap<String, HashSet<Arc<str>>>);

impl Refused {
    /// Notes a shader of a recipe.
    pub fn insert(&mut self, recipe: &str, wgsl: Arc<str>) {
        self.0.entry(recipe.into()).or_default().insert(wgsl);
    }

    /// How many shaders were refused.
    pub fn len(&self) -> usize {
        self.0.values().map(HashSet::len).sum()
    }

    /// Whether one of a recipe's shaders was refused.
    pub fn has(&self, recipe: &Recipe) -> bool {
        let texts = self.0.get(&recipe.name);
        texts.is_some_and(|texts| {
            let is_refused = |text| texts.contains(&text);
            recipe.passes.iter().any(|pass| pass.wgsl.text().is_ok_and(is_refused))
        })
    }
}
