//! The loop with the most multiply-adds in a disassembly, for each compiler's own way to write one.

use std::collections::BTreeMap;

/// What one iteration of a loop executes, in instructions.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct HotLoop {
    pub instructions: u64,
    pub fma: u64,
    pub vmem: u64,
    pub lds: u64,
    /// Loops inside, whose instructions count once here, however often they run.
    pub loops: u64,
    /// How many of each instruction.
    pub mix: BTreeMap<String, u64>,
}

/// A line of a disassembly, as far as loops are concerned.
enum Line<'a> {
    Label(String),
    /// An instruction, how often it is repeated, and where it may jump to.
    Instruction {
        op: &'a str,
        text: &'a str,
        times: u64,
        target: Option<String>,
    },
    /// The end of a block, and the blocks that may be next.
    Next(Vec<String>),
    Other,
}

/// A compiler's disassembly.
#[derive(Clone, Copy, PartialEq)]
pub enum Dialect {
    /// RADV (AMD).
    Aco,
    /// NVK (NVIDIA).
    Nak,
    /// Turnip (Adreno).
    Ir3,
    /// Honeykrisp (Apple).
    Agx,
}

impl HotLoop {
    /// The instructions that stand most often, with their numbers.
    pub fn commonest(&self, count: usize) -> String {
        let mut mix: Vec<_> = self.mix.iter().map(|(op, times)| (*times, op)).collect();
        mix.sort_by(|a, b| b.cmp(a));
        let words: Vec<_> = mix.iter().take(count).map(|(times, op)| format!("{times} {op}")).collect();
        words.join(", ")
    }

    /// The part of its instructions that are multiply-adds.
    pub fn share(&self) -> f64 {
        self.fma as f64 / self.instructions.max(1) as f64
    }

    /// A loop is the text from a label to a later jump back to it, or the blocks from which such a jump can be reached.
    pub fn find(dialect: Dialect, asm: &str) -> Self {
        let lines: Vec<_> = asm.lines().flat_map(|line| dialect.lines(line)).collect();
        if dialect == Dialect::Nak {
            return Self::among_blocks(dialect, lines);
        }
        let label_line = |label: &str| lines.iter().position(|line| matches!(line, Line::Label(name) if name == label));
        let mut loops = Vec::new();
        for (end, line) in lines.iter().enumerate() {
            let Line::Instruction { target: Some(target), .. } = line else { continue };
            let Some(start) = label_line(target).filter(|start| *start < end) else { continue };
            let mut body = Self::count(dialect, &lines[start..=end]);
            let jumps = lines[start..end].iter().enumerate().filter(|(at, line)| {
                let Line::Instruction { target: Some(target), .. } = line else { return false };
                let before = lines[start..start + at].iter().skip(1);
                before.into_iter().any(|line| matches!(line, Line::Label(name) if name == target))
            });
            body.loops = jumps.count() as u64;
            loops.push(body);
        }
        Self::hottest(loops)
    }

    /// The loop with the most multiply-adds, or one inside of it that has four fifths of them, which runs more often:
    /// what is outside, such as a division or a sum of halves, may have a few.
    fn hottest(loops: Vec<Self>) -> Self {
        let most = loops.iter().map(|body| body.fma).max().unwrap_or(0);
        let with_most = loops.into_iter().filter(|body| body.fma > 0 && body.fma * 5 >= most * 4);
        with_most.min_by_key(|body| body.instructions).unwrap_or_default()
    }

    /// Where blocks stand in any order: a natural loop is its header and all that reaches the jump back without it.
    fn among_blocks(dialect: Dialect, lines: Vec<Line<'_>>) -> Self {
        let mut blocks: Vec<(String, Vec<Line<'_>>, Vec<String>)> = Vec::new();
        for line in lines {
            match (line, blocks.last_mut()) {
                (Line::Label(name), _) => blocks.push((name, Vec::new(), Vec::new())),
                (Line::Next(next), Some(block)) => block.2 = next,
                (line, Some(block)) => block.1.push(line),
                _ => {}
            }
        }
        let at = |name: &String| blocks.iter().position(|block| block.0 == *name);
        let mut loops = Vec::new();
        for (tail, (_, _, next)) in blocks.iter().enumerate() {
            for head in next.iter().filter_map(at).filter(|head| *head <= tail) {
                let mut inside = vec![head];
                let mut open = vec![tail];
                while let Some(block) = open.pop() {
                    if inside.contains(&block) {
                        continue;
                    }
                    inside.push(block);
                    open.extend((0..blocks.len()).filter(|&before| blocks[before].2.contains(&blocks[block].0)));
                }
                let mut body = Self::default();
                for &block in &inside {
                    body.add(Self::count(dialect, &blocks[block].1));
                    let back =
                        |to: &&String| at(to).is_some_and(|to| to != head && to <= block && inside.contains(&to));
                    body.loops += blocks[block].2.iter().filter(back).count() as u64;
                }
                loops.push(body);
            }
        }
        Self::hottest(loops)
    }

    fn add(&mut self, other: Self) {
        self.instructions += other.instructions;
        self.fma += other.fma;
        self.vmem += other.vmem;
        self.lds += other.lds;
        other.mix.into_iter().for_each(|(op, times)| *self.mix.entry(op).or_default() += times);
    }

    fn count(dialect: Dialect, lines: &[Line<'_>]) -> Self {
        let mut count = Self::default();
        for line in lines {
            let Line::Instruction { op, text, times, .. } = line else { continue };
            *count.mix.entry((*op).to_owned()).or_default() += times;
            let any = |families: &[&str]| families.iter().any(|family| op.starts_with(family));
            count.instructions += times;
            // One instruction word that issues two operations, written `v_dual_fmac … :: v_dual_fmac …`.
            if op.starts_with("v_dual_") {
                count.fma += text.matches("v_dual_fmac").count() as u64;
                count.instructions += 1;
            } else if any(dialect.multiply_adds()) && !converts(op, text) {
                count.fma += times;
            }
            count.vmem += if any(dialect.memory()) { *times } else { 0 };
            count.lds += if any(dialect.workgroup_memory()) { *times } else { 0 };
        }
        count
    }
}

/// Whether it only converts a half, or adds one: AMD's compiler multiplies these by one.
fn converts(op: &str, text: &str) -> bool {
    op.starts_with("v_fma_mix") && text.contains(" 1.0,")
}

impl Dialect {
    fn multiply_adds(self) -> &'static [&'static str] {
        match self {
            Self::Aco => &["v_fma", "v_mac", "v_mad_f", "v_pk_fma", "v_dot", "v_wmma"],
            Self::Nak => &["ffma", "hfma2", "dp4a", "idp", "hmma", "imma"],
            Self::Ir3 => &["mad.f", "dp4acc"],
            Self::Agx => &["ffma", "hfma", "simd_matrix"],
        }
    }

    fn memory(self) -> &'static [&'static str] {
        match self {
            Self::Aco => &["buffer_", "global_"],
            Self::Nak => &["ld.global", "st.global"],
            Self::Ir3 => &["isam", "ldib", "stib", "ldg", "stg"],
            Self::Agx => &["load", "store"],
        }
    }

    fn workgroup_memory(self) -> &'static [&'static str] {
        match self {
            Self::Aco => &["ds_"],
            Self::Nak => &["ld.shared", "st.shared", "ldsm"],
            Self::Ir3 => &["ldl", "stl"],
            Self::Agx => &["lload", "lstore"],
        }
    }

    fn lines(self, line: &str) -> Vec<Line<'_>> {
        let text = line.trim();
        match self {
            Self::Aco => vec![aco(text)],
            Self::Nak => vec![nak(text)],
            Self::Ir3 => vec![ir3(text)],
            Self::Agx => agx(text),
        }
    }
}

fn first(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// `BB3:`, `s_cbranch_scc1 BB3`.
fn aco(text: &str) -> Line<'_> {
    if let Some(label) = text.strip_suffix(':') {
        return Line::Label(label.into());
    }
    if text.is_empty() {
        return Line::Other;
    }
    let op = first(text);
    let jumps = op.starts_with("s_cbranch") || op == "s_branch";
    let target = text.split_whitespace().nth(1).filter(|_| jumps).map(String::from);
    Line::Instruction { op, text, times: 1, target }
}

/// `block.u 7 L14 [4, 5] -> {` is a label, `} -> [8, 7]` where a block goes on; `r2 p0 = iadd3 r1 …  // delay=4`.
fn nak(text: &str) -> Line<'_> {
    if text.starts_with("block") {
        return Line::Label(text.split_whitespace().nth(1).unwrap_or_default().into());
    }
    if let Some(next) = text.strip_prefix("} -> [") {
        return Line::Next(next.trim_end_matches(']').split(", ").map(String::from).collect());
    }
    let code = text.split("//").next().unwrap_or_default();
    let code = code.split_once('=').map_or(code, |(_, right)| right).trim();
    let code = if code.starts_with('@') { code.split_once(' ').map_or("", |(_, right)| right).trim() } else { code };
    match first(code) {
        "" | "}" => Line::Other,
        op => Line::Instruction { op, text, times: 1, target: None },
    }
}

/// `l404:`, `(sy)(ss)jump #l404`, `(rpt3)mad.f32 …`.
fn ir3(text: &str) -> Line<'_> {
    if let Some(label) = text.strip_suffix(':').filter(|label| label.starts_with('l')) {
        return Line::Label(label.into());
    }
    let (mut code, mut times) = (text, 1);
    while let Some((flag, rest)) = code.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        times = flag.strip_prefix("rpt").and_then(|count| count.parse::<u64>().ok()).map_or(times, |count| count + 1);
        code = rest.trim_start();
    }
    let op = first(code);
    if !op.starts_with(|letter: char| letter.is_ascii_lowercase()) {
        return Line::Other;
    }
    let target = code.split_once('#').filter(|_| op.starts_with("br") || op == "jump").map(|(_, to)| to.trim().into());
    Line::Instruction { op, text, times, target }
}

/// `189a: 00c022ebffff           jmp_any  -5342`, relative to the instruction's own address. Each address is a label.
fn agx(text: &str) -> Vec<Line<'_>> {
    let Some((address, rest)) = text.split_once(": ") else { return Vec::new() };
    let Ok(address) = i64::from_str_radix(address.trim(), 16) else { return Vec::new() };
    let mut words = rest.split_whitespace();
    let (Some(_), Some(op)) = (words.next(), words.next()) else { return Vec::new() };
    let offset = words.next().filter(|_| op.starts_with("jmp")).and_then(|offset| offset.parse::<i64>().ok());
    let target = offset.map(|offset| format!("{:x}", address + offset));
    vec![Line::Label(format!("{address:x}")), Line::Instruction { op, text: rest, times: 1, target }]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loop inside of another, for AMD: how many multiply-adds are inside, and how many around it.
    fn nested(inside: usize, around: usize) -> HotLoop {
        let multiply_adds = |count| "v_fma_f32 v0, v1, v2, v0\n".repeat(count);
        let (inside, around) = (multiply_adds(inside), multiply_adds(around));
        HotLoop::find(Dialect::Aco, &format!("BB0:\n{around}BB1:\n{inside}s_branch BB1\nBB2:\ns_branch BB0\n"))
    }

    #[test]
    fn a_conversion_is_no_multiply_add() {
        let lines = [
            "v_fma_mix_f32 v1, v2, 1.0, neg(0) op_sel_hi:[1,0,0]",
            "v_fma_mix_f32 v3, 1.0, v4, v3 op_sel_hi:[0,1,0]",
            "v_fma_mix_f32 v3, v1, v4, v3 op_sel_hi:[0,1,0]",
        ];
        let found = HotLoop::find(Dialect::Aco, &format!("BB0:\n{}\ns_branch BB0\n", lines.join("\n")));
        assert_eq!((found.fma, found.instructions), (1, 4));
    }

    #[test]
    fn the_hot_loop_is_the_inner_one_if_it_has_most_multiply_adds() {
        assert_eq!((nested(256, 52).fma, nested(256, 52).instructions, nested(256, 52).loops), (256, 257, 0));
        assert_eq!((nested(128, 64).fma, nested(128, 64).instructions, nested(128, 64).loops), (192, 194, 1));
        assert_eq!(HotLoop::find(Dialect::Aco, "BB0:\ns_nop 0\ns_branch BB0\n").fma, 0);
    }
}
