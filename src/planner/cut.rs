//! Where runs end: the cheapest way through a chain, by dynamic programming.

use super::{Choice, Considered, Fusion, Step, is_pool};

/// What the caller wants, taken apart.
pub struct Wanted<'a> {
    /// A name for every step, or one for each; none if any will do.
    pub names: Vec<&'a str>,
    fusion: Fusion,
}

impl<'a> Wanted<'a> {
    pub fn new(choice: &'a Choice) -> Self {
        match choice {
            Choice::Auto => Self { names: Vec::new(), fusion: Fusion::Auto },
            Choice::Fusion(fusion) => Self { names: Vec::new(), fusion: *fusion },
            Choice::Named(names) => Self { names: names.split('+').collect(), fusion: Fusion::Auto },
        }
    }

    /// Whether a recipe may be the step at a place.
    fn allows(&self, place: usize, recipe: &str) -> bool {
        match self.names[..] {
            [] => true,
            // A single name of a kernel for convolutions leaves pools as they are.
            [all] if is_pool(recipe) && !is_pool(all) => true,
            [all] => is_called(recipe, all),
            _ => self.names.get(place).is_some_and(|name| is_called(recipe, name)),
        }
    }

    /// How good a way is, the least being the best.
    fn rank(&self, way: &Way) -> (usize, f64) {
        (if self.fusion == Fusion::Always { way.steps.len() } else { 0 }, way.seconds)
    }
}

/// Whether a recipe is meant by a name, its own or its kernel's.
pub fn is_called(recipe: &str, name: &str) -> bool {
    recipe == name || recipe.split('/').next() == Some(name)
}

/// Steps up to some link: which answer, and which of its recipes.
#[derive(Clone, Default)]
struct Way {
    seconds: f64,
    steps: Vec<(usize, usize)>,
}

/// The steps of the cheapest way through a chain of so many links, of those wanted.
pub fn cheapest(considered: &[Considered], count: usize, wanted: &Wanted<'_>) -> Option<Vec<Step>> {
    // Of several names each is for the step at its place, so the cheapest way to a link depends on how many
    // steps there were before. Of one name, or none, it does not.
    let places = if wanted.names.len() > 1 { wanted.names.len() } else { 0 };
    // The cheapest way to each link, in each number of steps if that matters.
    let mut best: Vec<Vec<Option<Way>>> = vec![vec![None; places + 1]; count + 1];
    best[0][0] = Some(Way::default());
    let mut begin = 0;
    for answers in runs(considered) {
        let (first, links) = (answers[0].first, answers[0].links);
        let places_here = if wanted.fusion == Fusion::Never && links > 1 { 0..0 } else { 0..places.max(1) };
        for place in places_here {
            let Some(before) = &best[first][place] else { continue };
            let Some(pick) = pick(answers, |name| wanted.allows(place, name)) else { continue };
            let taken = (begin + pick.answer, pick.recipe);
            let steps = before.steps.iter().copied().chain([taken]).collect();
            let way = Way { seconds: before.seconds + pick.seconds, steps };
            let so_far = &mut best[first + links][if places > 0 { place + 1 } else { 0 }];
            if so_far.as_ref().is_none_or(|so_far| wanted.rank(&way) < wanted.rank(so_far)) {
                *so_far = Some(way);
            }
        }
        begin += answers.len();
    }
    let way = best.pop()?.pop()??;
    way.steps.into_iter().map(|(answer, recipe)| considered[answer].step(recipe)).collect()
}

/// The cheapest recipe of each single link in a range.
pub fn cheapest_singles(considered: &[Considered], from: usize, to: usize) -> Option<Vec<Step>> {
    let singles = runs(considered).filter(|answers| answers[0].links == 1 && (from..to).contains(&answers[0].first));
    singles.map(|answers| pick(answers, |_| true).and_then(|pick| answers[pick.answer].step(pick.recipe))).collect()
}

/// What the links before each tensor take at the least, and what those after it, seconds.
pub fn around(considered: &[Considered], count: usize) -> [Vec<f64>; 2] {
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

/// The cheapest recipe for a run, of those allowed: if some were measured, of these.
fn pick(answers: &[Considered], allowed: impl Fn(&str) -> bool) -> Option<Pick> {
    let mut best: Option<(bool, Pick)> = None;
    for (answer, considered) in answers.iter().enumerate() {
        for (recipe, candidate) in considered.answer.iter().flatten().enumerate() {
            let (guessed, seconds) = (candidate.measured.is_none(), candidate.seconds());
            let better = |(other, pick): &(bool, Pick)| (guessed, seconds) < (*other, pick.seconds);
            if allowed(&candidate.recipe.name) && best.as_ref().is_none_or(better) {
                best = Some((guessed, Pick { answer, recipe, seconds }));
            }
        }
    }
    best.map(|(_, pick)| pick)
}
