//! Where runs end: the cheapest path through a chain, by dynamic programming.

use super::{Choice, Considered, Fusion, Step};
use crate::kernels::{DIRECT, Recipe, TAKE_ALL, Unsupported, kernel_of};

/// A [`Choice`] as the search needs it.
pub struct Wanted<'a> {
    /// One name for all steps, or one for each step; empty if any recipe will do.
    names: Vec<&'a str>,
    fusion: Fusion,
    /// The most scratch memory that a step may need, bytes.
    workspace: u64,
}

impl<'a> Wanted<'a> {
    pub fn new(choice: &'a Choice) -> Self {
        let any = Self { names: Vec::new(), fusion: Fusion::Auto, workspace: u64::MAX };
        match choice {
            Choice::Auto => any,
            Choice::Fusion(fusion) => Self { fusion: *fusion, ..any },
            Choice::Named(names) => Self { names: names.split('+').collect(), ..any },
            Choice::Within(choice, workspace) => {
                let wanted = Self::new(choice);
                Self { workspace: wanted.workspace.min(*workspace), ..wanted }
            }
        }
    }

    /// The names of kernels and recipes.
    pub fn names(&self) -> &[&'a str] {
        &self.names
    }

    /// The most scratch memory that a step may need, bytes.
    pub fn workspace(&self) -> u64 {
        self.workspace
    }

    /// Whether a recipe may be step number `place`, of a run that names count for or do not.
    fn allows(&self, place: usize, named: bool, recipe: &Recipe) -> bool {
        recipe.workspace.iter().sum::<u64>() <= self.workspace && (!named || self.means(place, &recipe.name))
    }

    /// Whether names count for a run. A single one says nothing of a link that is no convolution, unless its kernel is
    /// for such links.
    fn count_for(&self, answers: &[Considered]) -> bool {
        let [name] = self.names[..] else { return true };
        let is_for = |answer: &Considered| !matches!(answer.answer, Err(Unsupported::Link(_)));
        // Whether no kernel takes it that takes all links of another kind.
        let is_of_others = |answer: &Considered| answer.kernel != DIRECT && TAKE_ALL.contains(&answer.kernel);
        let is_convolution = !answers.iter().any(|answer| is_of_others(answer) && is_for(answer));
        is_convolution || answers.iter().any(|answer| is_called(name, answer.kernel) && is_for(answer))
    }

    /// Whether a recipe has the name asked for at step number `place`.
    fn means(&self, place: usize, recipe: &str) -> bool {
        match self.names[..] {
            [] => true,
            [all] => is_called(recipe, all),
            _ => self.names.get(place).is_some_and(|name| is_called(recipe, name)),
        }
    }

    /// A path's rank; the lowest is the best.
    fn rank(&self, path: &Path) -> (usize, f64) {
        (if self.fusion == Fusion::Always { path.steps.len() } else { 0 }, path.seconds)
    }
}

/// Whether a name means a recipe: its own name, or its kernel's.
pub fn is_called(recipe: &str, name: &str) -> bool {
    recipe == name || kernel_of(recipe) == name
}

/// A way to reach a link: for each step the index of the answer, and of the recipe in it.
#[derive(Clone, Default)]
struct Path {
    seconds: f64,
    steps: Vec<(usize, usize)>,
}

/// The steps of the cheapest allowed path through a chain of `count` links.
pub fn cheapest(considered: &[Considered], count: usize, wanted: &Wanted<'_>) -> Option<Vec<Step>> {
    // With a name for each step, the cheapest path to a link depends on the number of steps before it. With one
    // name or none it does not.
    let places = if wanted.names.len() > 1 { wanted.names.len() } else { 0 };
    // The cheapest path to each link, for each number of steps if that matters.
    let mut best: Vec<Vec<Option<Path>>> = vec![vec![None; places + 1]; count + 1];
    best[0][0] = Some(Path::default());
    let mut begin = 0;
    for answers in runs(considered) {
        let (first, links) = (answers[0].first, answers[0].links);
        let places_here = if wanted.fusion == Fusion::Never && links > 1 { 0..0 } else { 0..places.max(1) };
        let named = wanted.count_for(answers);
        for place in places_here {
            let Some(before) = &best[first][place] else { continue };
            let Some(pick) = pick(answers, |recipe| wanted.allows(place, named, recipe)) else { continue };
            let taken = (begin + pick.answer, pick.recipe);
            let steps = before.steps.iter().copied().chain([taken]).collect();
            let path = Path { seconds: before.seconds + pick.seconds, steps };
            let so_far = &mut best[first + links][if places > 0 { place + 1 } else { 0 }];
            if so_far.as_ref().is_none_or(|so_far| wanted.rank(&path) < wanted.rank(so_far)) {
                *so_far = Some(path);
            }
        }
        begin += answers.len();
    }
    let path = best.pop()?.pop()??;
    path.steps.into_iter().map(|(answer, recipe)| considered[answer].step(recipe)).collect()
}

/// The cheapest recipe of each single link in a range.
pub fn cheapest_singles(considered: &[Considered], from: usize, to: usize) -> Option<Vec<Step>> {
    let singles = runs(considered).filter(|answers| answers[0].links == 1 && (from..to).contains(&answers[0].first));
    singles.map(|answers| pick(answers, |_| true).and_then(|pick| answers[pick.answer].step(pick.recipe))).collect()
}

/// The least time for the links before each tensor, and for those after it, seconds.
pub fn best_before_and_after(considered: &[Considered], count: usize) -> [Vec<f64>; 2] {
    let spans: Vec<_> = runs(considered)
        .filter_map(|answers| Some((answers[0].first, answers[0].first + answers[0].links, pick(answers, |_| true)?)))
        .collect();
    let (mut before, mut after) = (vec![f64::INFINITY; count + 1], vec![f64::INFINITY; count + 1]);
    (before[0], after[count]) = (0.0, 0.0);
    for (first, end, pick) in &spans {
        before[*end] = before[*end].min(before[*first] + pick.seconds);
    }
    for (first, end, pick) in spans.iter().rev() {
        after[*first] = after[*first].min(after[*end] + pick.seconds);
    }
    [before, after]
}

/// The answers for each run; they are neighbours.
pub fn runs(considered: &[Considered]) -> impl Iterator<Item = &[Considered]> {
    considered.chunk_by(|a, b| (a.first, a.links) == (b.first, b.links))
}

/// A run's recipe that was picked.
struct Pick {
    answer: usize,
    recipe: usize,
    seconds: f64,
}

/// The cheapest allowed recipe for a run. If some were measured, only these compete.
fn pick(answers: &[Considered], allowed: impl Fn(&Recipe) -> bool) -> Option<Pick> {
    let mut best: Option<(bool, Pick)> = None;
    for (answer, considered) in answers.iter().enumerate() {
        for (recipe, candidate) in considered.answer.iter().flatten().enumerate() {
            let (guessed, seconds) = (candidate.measured.is_none(), candidate.seconds());
            let better = |(other, pick): &(bool, Pick)| (guessed, seconds) < (*other, pick.seconds);
            if allowed(&candidate.recipe) && best.as_ref().is_none_or(better) {
                best = Some((guessed, Pick { answer, recipe, seconds }));
            }
        }
    }
    best.map(|(_, pick)| pick)
}

#[cfg(test)]
mod tests {
    use super::super::{Candidate, model::Parts};
    use super::*;

    /// A candidate for links from `first` on, with its seconds and bytes of scratch memory.
    fn answer(first: usize, links: usize, name: &str, seconds: f64, workspace: u64) -> Considered {
        let recipe = Recipe {
            name: name.into(),
            passes: Vec::new(),
            weights: Vec::new(),
            workspace: vec![workspace / 2, workspace - workspace / 2],
            work: Default::default(),
            tolerance: 1.0,
            exact: true,
            spreads_errors: false,
        };
        let parts = Parts { mult_adds: seconds, occupancy: 1.0, overlap: true, ..Parts::default() };
        Considered { first, links, kernel: "any", answer: Ok(vec![Candidate { recipe, parts, measured: None }]) }
    }

    fn taken(considered: &[Considered], choice: &Choice) -> Option<String> {
        let steps = cheapest(considered, 3, &Wanted::new(choice))?;
        Some(steps.into_iter().map(|step| step.recipe.name).collect::<Vec<_>>().join("+"))
    }

    /// Three links; all three together are the cheapest and need the most scratch memory.
    fn considered() -> Vec<Considered> {
        vec![
            answer(0, 1, "a", 1.0, 0),
            answer(0, 1, "a_fast", 0.5, 100),
            answer(0, 2, "ab", 4.0, 0),
            answer(0, 3, "abc", 0.25, 1000),
            answer(1, 1, "b", 1.0, 0),
            answer(1, 2, "bc", 1.5, 0),
            answer(2, 1, "c", 1.0, 0),
        ]
    }

    #[test]
    fn choices_are_kept_to() {
        let considered = considered();
        let taken = |choice: Choice| taken(&considered, &choice);
        assert_eq!(taken(Choice::Auto).as_deref(), Some("abc"));
        assert_eq!(taken(Choice::Fusion(Fusion::Always)).as_deref(), Some("abc"));
        assert_eq!(taken(Choice::Fusion(Fusion::Never)).as_deref(), Some("a_fast+b+c"));
        assert_eq!(taken(Choice::Auto.within(100)).as_deref(), Some("a_fast+bc"));
        assert_eq!(taken(Choice::Auto.within(99)).as_deref(), Some("a+bc"));
        assert_eq!(taken(Choice::Fusion(Fusion::Never).within(99)).as_deref(), Some("a+b+c"));
        // Two steps either path; the cheaper one, though one by one is cheaper still for `ab`.
        assert_eq!(taken(Choice::Fusion(Fusion::Always).within(99)).as_deref(), Some("a+bc"));
        assert_eq!(taken(Choice::Named("ab+c".into())).as_deref(), Some("ab+c"));
        assert_eq!(taken(Choice::Named("abc".into()).within(99)), None);
        assert_eq!(taken(Choice::Auto.within(100).within(1000)).as_deref(), Some("a_fast+bc"));
    }

    #[test]
    fn what_comes_before_and_after_a_run_worked_out_by_hand() {
        assert_eq!(best_before_and_after(&considered(), 3), [vec![0.0, 0.5, 1.5, 0.25], vec![0.25, 1.5, 1.0, 0.0]]);
    }
}
