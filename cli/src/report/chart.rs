//! Shared by the charts: colours, markers, text, and the placing of labels so that they do not overlap.
//! `web/page` draws by this file, too.

use gpuconv::internals::kernel_of;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::figures::{count, figure};

/// Where a chart is drawn, in pixels.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A point in pixels.
pub type Point = (i32, i32);
type Drawn = Result<(), Box<dyn std::error::Error>>;
/// A chart as SVG.
pub type Chart = Result<String, Box<dyn std::error::Error>>;

/// A colour for light backgrounds, and its counterpart for dark ones. Charts are drawn in the light colour, and a rule
/// of their style sheet replaces it by the dark one.
#[derive(Clone, Copy, PartialEq)]
pub struct Ink {
    pub light: u32,
    pub dark: u32,
}

pub const SURFACE: Ink = Ink { light: 0xFFFFFF, dark: 0x14181D };
pub const TEXT: Ink = Ink { light: 0x1B2128, dark: 0xE4E8EC };
pub const MUTED: Ink = Ink { light: 0x5A6572, dark: 0x9AA6B2 };
pub const GRID: Ink = Ink { light: 0xE3E7EB, dark: 0x2B323A };
pub const LINE: Ink = Ink { light: 0x3B4651, dark: 0xB6C0CA };

const BLUE: Ink = Ink { light: 0x1666B0, dark: 0x6CB2F5 };
const ORANGE: Ink = Ink { light: 0xB35300, dark: 0xF2A04E };
const GREEN: Ink = Ink { light: 0x047A5C, dark: 0x45CBA0 };
const PURPLE: Ink = Ink { light: 0x7A49B8, dark: 0xBBA0F4 };
const PINK: Ink = Ink { light: 0xC21F5B, dark: 0xFF85A9 };
const BROWN: Ink = Ink { light: 0x7A5A12, dark: 0xD8BC74 };
const SLATE: Ink = Ink { light: 0x56616D, dark: 0xA9B5C0 };

#[derive(Clone, Copy, PartialEq)]
enum Marker {
    Circle,
    Square,
    Diamond,
    Up,
    Down,
    Plus,
}

/// A family of kernels, drawn with the same colour and marker in every chart.
#[derive(Clone, Copy, PartialEq)]
pub struct Family {
    pub name: &'static str,
    pub ink: Ink,
    marker: Marker,
}

const fn family(name: &'static str, ink: Ink, marker: Marker) -> Family {
    Family { name, ink, marker }
}

const FAMILIES: [Family; 19] = [
    family("depthwise", BLUE, Marker::Circle),
    family("pointwise", ORANGE, Marker::Square),
    family("implicit_gemm", GREEN, Marker::Up),
    family("separable", PINK, Marker::Diamond),
    family("winograd", PURPLE, Marker::Down),
    family("inverted_residual", BROWN, Marker::Plus),
    family("split", BROWN, Marker::Down),
    family("matvec", ORANGE, Marker::Diamond),
    family("direct", SLATE, Marker::Plus),
    family("pool", BROWN, Marker::Circle),
    family("window_pool", BROWN, Marker::Square),
    family("expand_depthwise", PINK, Marker::Plus),
    family("gate", PINK, Marker::Circle),
    family("transposed", GREEN, Marker::Down),
    family("phases", GREEN, Marker::Diamond),
    family("resize", GREEN, Marker::Square),
    family("shuffle", GREEN, Marker::Circle),
    family("prelu", SLATE, Marker::Square),
    family("channels", SLATE, Marker::Down),
];
const OTHERS: Family = family("other", SLATE, Marker::Circle);

/// The three forms of a separable convolution: standard, in two steps, in one.
pub const FORMS: [(&str, Ink); 3] =
    [("standard convolution", SLATE), ("separable, in two steps", BLUE), ("separable, fused in one", ORANGE)];

impl Family {
    /// The family of a recipe's kernel. Variants such as `pointwise_subgroup` belong to the same family.
    pub fn of(recipe: &str) -> Self {
        let kernel = kernel_of(recipe);
        let is_called = |family: &&Family| {
            kernel
                .strip_prefix(family.name)
                .is_some_and(|rest| !rest.contains(char::is_alphanumeric) || rest.starts_with('_'))
        };
        FAMILIES.iter().find(is_called).copied().unwrap_or(OTHERS)
    }

    /// Draws its marker.
    pub fn draw(&self, area: &Area<'_>, (x, y): Point, radius: i32) -> Drawn {
        let r = radius;
        let corners = match self.marker {
            Marker::Circle => {
                return Ok(area.draw(&Circle::new((x, y), r, self.ink.filled()))?);
            }
            Marker::Square => vec![(-r, -r), (r, -r), (r, r), (-r, r)],
            Marker::Diamond => vec![(0, -r - 2), (r + 2, 0), (0, r + 2), (-r - 2, 0)],
            Marker::Up => vec![(0, -r - 1), (r + 1, r), (-r - 1, r)],
            Marker::Down => vec![(0, r + 1), (r + 1, -r), (-r - 1, -r)],
            Marker::Plus => {
                let (long, wide) = (r + 1, r / 2);
                let arm = [(-wide, -long), (wide, -long), (wide, -wide), (long, -wide), (long, wide), (wide, wide)];
                let opposite = arm.map(|(x, y)| (-x, -y));
                arm.into_iter().chain(opposite).collect()
            }
        };
        let corners: Vec<_> = corners.into_iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        Ok(area.draw(&Polygon::new(corners, self.ink.filled()))?)
    }
}

impl Ink {
    pub fn color(self) -> RGBColor {
        let [_, red, green, blue] = self.light.to_be_bytes();
        RGBColor(red, green, blue)
    }

    pub fn filled(self) -> ShapeStyle {
        self.color().filled()
    }
}

/// Every colour that charts are drawn in.
pub fn inks() -> impl Iterator<Item = Ink> {
    let families = FAMILIES.iter().map(|family| family.ink);
    [SURFACE, TEXT, MUTED, GRID, LINE, SLATE].into_iter().chain(families)
}

/// The style sheet of charts: fonts, a rim that separates overlapping markers, and the dark scheme.
pub fn style() -> String {
    let mut dark = String::new();
    let mut seen = Vec::new();
    for ink in inks().filter(|ink| *ink != SURFACE) {
        if !seen.contains(&ink.light) {
            seen.push(ink.light);
            let Ink { light, dark: other } = ink;
            dark += &format!(
                "svg [fill=\"#{light:06X}\"]{{fill:#{other:06X}}}svg [stroke=\"#{light:06X}\"]{{stroke:#{other:06X}}}"
            );
        }
    }
    let rim = "svg circle,svg polygon{stroke:";
    format!(
        "svg text{{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}}\
         {rim}#{:06X};stroke-width:1}}@media (prefers-color-scheme:dark){{{rim}#{:06X}}}{dark}}}",
        SURFACE.light, SURFACE.dark
    )
}

/// Draws a chart and returns its SVG. `label` describes the chart for screen readers.
pub fn svg(size: (u32, u32), label: &str, draw: impl FnOnce(&Area<'_>) -> Drawn) -> Chart {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    let drawn = draw(&area).and_then(|()| Ok(area.present()?));
    drop(area);
    drawn?;
    let label = label.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    // The backend writes a line break after every text, and an opacity that is always 1.
    let text = text.replace("\n</text>", "</text>").replace(">\n", ">").replace(" opacity=\"1\"", "");
    Ok(text.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{label}\" "), 1))
}

/// The chart as a file of its own, with its style and a background.
pub fn file(svg: &str) -> String {
    let surface = format!("svg .surface{{fill:#{:06X}}}", SURFACE.light);
    let dark = format!("@media (prefers-color-scheme:dark){{svg .surface{{fill:#{:06X}}}}}", SURFACE.dark);
    let head = format!(
        "<style>{}{surface}{dark}</style><rect class=\"surface\" width=\"100%\" height=\"100%\" rx=\"8\"/>",
        style()
    );
    svg.replacen('>', &format!(">{head}"), 1) + "\n"
}

/// A size of type in pixels, as the backend takes it.
pub fn font(size: f64, ink: Ink) -> TextStyle<'static> {
    TextStyle { color: ink.color().to_backend_color(), ..TextStyle::from(("sans-serif", size * 1.24).into_font()) }
}

/// Draws text at a point. The point is the `side` (left, centre or right) of the text, in the middle of its height.
pub fn text(area: &Area<'_>, text: &str, at: Point, size: f64, ink: Ink, side: HPos) -> Drawn {
    let style = font(size, ink).pos(Pos::new(side, VPos::Center));
    Ok(area.draw(&Text::new(text.to_string(), at, style))?)
}

/// Lays out a legend of coloured squares with names, in as many lines as needed: the place of each, and the height.
pub fn legend(names: &[(String, Ink)], width: i32) -> (Vec<Point>, i32) {
    const LINE: i32 = 20;
    let (mut x, mut y, mut places) = (4, 12, Vec::new());
    for (name, _) in names {
        let wide = 18 + self::width(name, 12.0) + 14;
        if x > 4 && x + wide > width {
            (x, y) = (4, y + LINE);
        }
        places.push((x, y));
        x += wide;
    }
    (places, y + LINE)
}

/// Draws the legend that [`legend`] has laid out.
pub fn draw_legend(area: &Area<'_>, names: &[(String, Ink)], places: &[Point]) -> Drawn {
    for ((name, ink), &(x, y)) in names.iter().zip(places) {
        area.draw(&Rectangle::new([(x, y - 6), (x + 12, y + 6)], ink.filled()))?;
        text(area, name, (x + 18, y), 12.0, TEXT, HPos::Left)?;
    }
    Ok(())
}

/// A number beside a bar: three digits, or a whole number in groups of three.
pub fn amount(number: f64) -> String {
    match number {
        small if small > 0.0 && small < 0.001 => figure(number),
        small if small < 1.0 => format!("{number:.3}"),
        large if large >= 1000.0 => count(number.round() as u64),
        _ => figure(number),
    }
}

/// `part` of `whole`, with words for none and all.
pub fn of(part: usize, whole: usize) -> String {
    match part {
        0 => format!("none of {whole}"),
        all if all == whole => format!("all {whole}"),
        _ => format!("{part} of {whole}"),
    }
}

/// An upper bound of a text's width in pixels, for all of the style's fonts.
pub fn width(text: &str, size: f64) -> i32 {
    (text.chars().count() as f64 * size * 0.6).ceil() as i32
}

/// A text, shortened to a width in pixels.
pub fn fitted(text: &str, size: f64, room: i32) -> String {
    if width(text, size) <= room {
        return text.into();
    }
    let most = (f64::from(room) / (size * 0.6)) as usize;
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Left, top, right and bottom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Box4(pub [i32; 4]);

impl Box4 {
    pub fn around((x, y): Point, radius: i32) -> Self {
        Self([x - radius, y - radius, x + radius, y + radius])
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        let (Self([l, t, r, b]), Self([left, top, right, bottom])) = (self, other);
        l < right && left < r && t < bottom && top < b
    }

    /// The distance from the nearest edge to a point.
    fn distance(&self, (x, y): Point) -> f64 {
        let Self([left, top, right, bottom]) = *self;
        let (dx, dy) = ((left - x).max(x - right).max(0), (top - y).max(y - bottom).max(0));
        f64::from(dx).hypot(f64::from(dy))
    }
}

/// The free place for a label that is closest to its own points and not too close to those of others. `None` if there
/// is no room.
pub fn place((w, h): Point, within: Box4, own: &[Point], others: &[Point], taken: &[Box4]) -> Option<Box4> {
    const STEP: usize = 4;
    let Box4([left, top, right, bottom]) = within;
    let nearest = |place: &Box4, points: &[Point]| points.iter().map(|&p| place.distance(p)).fold(f64::MAX, f64::min);
    let mut best: Option<(f64, Box4)> = None;
    for y in (top..=bottom - h).step_by(STEP) {
        for x in (left..=right - w).step_by(STEP) {
            let place = Box4([x, y, x + w, y + h]);
            let score = nearest(&place, own) - 0.6 * nearest(&place, others).min(36.0);
            let is_better = best.is_none_or(|(least, _)| score < least);
            if is_better && !taken.iter().any(|other| place.overlaps(other)) {
                best = Some((score, place));
            }
        }
    }
    best.map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use gpuconv::internals::KERNELS;

    use super::*;

    /// WCAG's contrast of two colours.
    fn contrast(a: u32, b: u32) -> f64 {
        let luminance = |color: u32| {
            let linear = |byte: u8| match f64::from(byte) / 255.0 {
                low if low <= 0.04045 => low / 12.92,
                high => ((high + 0.055) / 1.055).powf(2.4),
            };
            let [_, red, green, blue] = color.to_be_bytes().map(linear);
            0.2126 * red + 0.7152 * green + 0.0722 * blue
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_can_be_read_in_every_colour() {
        for ink in inks().filter(|ink| *ink != SURFACE && *ink != GRID) {
            let [light, dark] = [contrast(ink.light, SURFACE.light), contrast(ink.dark, SURFACE.dark)];
            assert!(light >= 4.5 && dark >= 4.5, "{:06X} {light:.2}, {:06X} {dark:.2}", ink.light, ink.dark);
        }
    }

    #[test]
    fn families_differ_in_colour_or_shape() {
        for (index, one) in FAMILIES.iter().enumerate() {
            let mut others = FAMILIES[..index].iter();
            assert!(others.all(|other| other.ink != one.ink || other.marker != one.marker), "{}", one.name);
        }
    }

    #[test]
    fn every_kernel_has_its_family() {
        let families = KERNELS.iter().map(|kernel| (kernel.name, Family::of(kernel.name).name));
        for (kernel, family) in families {
            assert!(kernel.starts_with(family), "{kernel}: {family}");
        }
        assert_eq!(Family::of("pointwise_subgroup/32x4").name, "pointwise");
        assert_eq!(Family::of("median/serial").name, "other");
    }

    #[test]
    fn a_label_goes_where_there_is_room() {
        let within = Box4([0, 0, 100, 100]);
        // The left half is taken, and the point is in it.
        let taken = [Box4([0, 0, 50, 100])];
        let found = place((20, 10), within, &[(48, 50)], &[], &taken).unwrap();
        assert!(!found.overlaps(&taken[0]) && found.0[0] <= 54, "{found:?}");
        assert_eq!(place((60, 10), within, &[(48, 50)], &[], &taken), None);
    }

    #[test]
    fn numbers_and_names_of_bars() {
        let amounts = [0.0001234, 0.0, 0.0723, 0.8951, 89.4, 702.4, 19331.6].map(amount);
        assert_eq!(amounts, ["1.23e-4", "0.000", "0.072", "0.895", "89.4", "702", "19,332"]);
        assert_eq!([of(0, 6), of(2, 6), of(6, 6)], ["none of 6", "2 of 6", "all 6"]);
        let names = ["abc", "def", "ghi"].map(|name| (name.to_string(), TEXT));
        // Each takes 18 + 22 + 14 pixels, so two fit into a line.
        assert_eq!(legend(&names, 120), (vec![(4, 12), (58, 12), (4, 32)], 52));
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(fitted("abcdef", 10.0, 36), "abcdef");
        assert_eq!(fitted("abcdef", 10.0, 30), "abcd…");
    }
}
