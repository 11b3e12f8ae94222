//! Options and weights, as JavaScript gives them.

use gpuconv::{Activation, Chain, Conv2d, DType, Layout, OwnedWeights, Residual, Separable};
use js_sys::{Array, Function, Object, Reflect};
use wasm_bindgen::{JsCast, JsValue};

use crate::js::{failed, floats, refused};

/// An object of options, all of whose names are known.
pub struct Options<'a> {
    /// Whose options, for messages.
    what: &'static str,
    object: &'a JsValue,
}

impl<'a> Options<'a> {
    /// Refuses names that are none of an option. Undefined has no options.
    pub fn of(what: &'static str, object: &'a JsValue, known: &[&str]) -> Result<Self, JsValue> {
        if let Some(object) = object.dyn_ref::<Object>() {
            for key in Object::keys(object).iter().filter_map(|key| key.as_string()) {
                if !known.contains(&&key[..]) {
                    return Err(refused(&format!("{what} has no option `{key}`; there are {}", known.join(", "))));
                }
            }
        } else if !object.is_undefined() {
            return Err(refused(&format!("the options of {what} must be an object")));
        }
        Ok(Self { what, object })
    }

    pub fn get(&self, name: &str) -> JsValue {
        Reflect::get(self.object, &name.into()).unwrap_or(JsValue::UNDEFINED)
    }

    fn wrong<T>(&self, name: &str, expected: &str) -> Result<T, JsValue> {
        let words = match self.get(name) {
            value if value.is_undefined() => format!("{} needs the option {name}, {expected}", self.what),
            value => format!("the option {name} of {} must be {expected}, but is {}", self.what, text(&value)),
        };
        Err(refused(&words))
    }

    /// A function, or undefined.
    pub fn function(&self, name: &str) -> Result<JsValue, JsValue> {
        match self.get(name) {
            value if value.is_undefined() || value.has_type::<Function>() => Ok(value),
            _ => self.wrong(name, "a function"),
        }
    }

    /// The signal that stops the work, or undefined.
    pub fn signal(&self) -> Result<JsValue, JsValue> {
        let signal = self.get("signal");
        let aborted = Reflect::get(&signal, &"aborted".into());
        match signal.is_undefined() || aborted.is_ok_and(|aborted| aborted.as_bool().is_some()) {
            true => Ok(signal),
            false => self.wrong("signal", "an AbortSignal"),
        }
    }

    /// A whole number.
    pub fn number(&self, name: &str, default: Option<u32>) -> Result<u32, JsValue> {
        let value = self.get(name);
        match (whole(&value), default) {
            (Some(number), _) => Ok(number),
            (None, Some(default)) if value.is_undefined() => Ok(default),
            _ => self.wrong(name, "a whole number"),
        }
    }

    /// A number.
    pub fn float(&self, name: &str, default: f64) -> Result<f64, JsValue> {
        let value = self.get(name);
        match value.as_f64() {
            Some(number) if number.is_finite() => Ok(number),
            None if value.is_undefined() => Ok(default),
            _ => self.wrong(name, "a number"),
        }
    }

    /// Whether something is so; not, if it is not said.
    fn flag(&self, name: &str) -> Result<bool, JsValue> {
        let value = self.get(name);
        match value.as_bool() {
            Some(flag) => Ok(flag),
            None if value.is_undefined() => Ok(false),
            None => self.wrong(name, "true or false"),
        }
    }

    /// One whole number, or several.
    fn numbers(&self, name: &str, expected: &str, default: Option<u32>) -> Result<Vec<u32>, JsValue> {
        let value = self.get(name);
        let numbers = match value.dyn_ref::<Array>() {
            Some(array) => array.iter().map(|value| whole(&value)).collect::<Option<Vec<_>>>(),
            None if value.is_undefined() => default.map(|number| vec![number]),
            None => whole(&value).map(|number| vec![number]),
        };
        numbers.map_or_else(|| self.wrong(name, expected), Ok)
    }

    /// Rows and columns.
    pub fn extent(&self, name: &str, default: Option<u32>) -> Result<[u32; 2], JsValue> {
        let expected = "a whole number or [rows, columns]";
        match self.numbers(name, expected, default)?[..] {
            [both] => Ok([both; 2]),
            [rows, columns] => Ok([rows, columns]),
            _ => self.wrong(name, expected),
        }
    }

    fn padding(&self) -> Result<[u32; 4], JsValue> {
        let expected = "a whole number, [rows, columns] or [top, left, bottom, right]";
        match self.numbers("padding", expected, Some(0))?[..] {
            [all] => Ok([all; 4]),
            [rows, columns] => Ok([rows, columns, rows, columns]),
            [top, left, bottom, right] => Ok([top, left, bottom, right]),
            _ => self.wrong("padding", expected),
        }
    }

    fn activation(&self) -> Result<Activation, JsValue> {
        let value = self.get("activation");
        if let Some(bounds) = value.dyn_ref::<Array>() {
            let bounds: Vec<_> = bounds.iter().map(|bound| bound.as_f64()).collect();
            if let [Some(low), Some(high)] = bounds[..] {
                return Ok(Activation::Clamp(low as f32, high as f32));
            }
        }
        let word = value.as_string();
        let slope = word.as_deref().and_then(|word| word.strip_prefix("leakyrelu:")?.parse().ok());
        if let Some(slope) = slope {
            return Ok(Activation::LeakyRelu(slope));
        }
        match word.as_deref() {
            Some("none") => Ok(Activation::None),
            Some("relu") => Ok(Activation::Relu),
            Some("relu6") => Ok(Activation::Relu6),
            Some("silu") => Ok(Activation::Silu),
            Some("hardswish") => Ok(Activation::HardSwish),
            Some("sigmoid") => Ok(Activation::Sigmoid),
            Some("hardsigmoid") => Ok(Activation::HardSigmoid),
            Some("tanh") => Ok(Activation::Tanh),
            Some("gelu") => Ok(Activation::Gelu),
            None if value.is_undefined() => Ok(Activation::None),
            _ => self.wrong("activation", "an activation's name as in problem lines, or [low, high]"),
        }
    }

    fn residual(&self) -> Result<Option<Residual>, JsValue> {
        let value = self.get("residual");
        match value.as_string().as_deref() {
            Some("before") => Ok(Some(Residual::BeforeActivation)),
            Some("after") => Ok(Some(Residual::AfterActivation)),
            None if value.is_undefined() => Ok(None),
            _ => self.wrong("residual", "before or after (the activation)"),
        }
    }
}

/// The names of a kind of convolution, and its own options.
pub struct Kind {
    name: &'static str,
    options: &'static [&'static str],
}

pub const CONV: Kind = Kind {
    name: "conv2d",
    options: &[
        "inChannels",
        "outChannels",
        "kernelSize",
        "stride",
        "padding",
        "dilation",
        "groups",
        "activation",
        "residual",
        "scaled",
        "dtype",
    ],
};
pub const DEPTHWISE: Kind = Kind {
    name: "depthwise",
    options: &[
        "channels",
        "outChannels",
        "kernelSize",
        "stride",
        "padding",
        "dilation",
        "activation",
        "residual",
        "scaled",
        "dtype",
    ],
};
pub const POINTWISE: Kind = Kind {
    name: "pointwise",
    options: &["inChannels", "outChannels", "stride", "padding", "groups", "activation", "residual", "scaled", "dtype"],
};

/// A convolution and its weights, as a chain.
pub fn conv(options: &JsValue, weights: &JsValue, kind: Kind) -> Result<(Chain, Vec<OwnedWeights>), JsValue> {
    let options = Options::of(kind.name, options, kind.options)?;
    let weights = self::weights(weights)?;
    let mut conv = match kind.name {
        "depthwise" => {
            let channels = options.number("channels", None)?;
            let mut conv = Conv2d::depthwise(channels, options.extent("kernelSize", None)?);
            conv.out_channels = options.number("outChannels", Some(channels))?;
            conv
        }
        "pointwise" => Conv2d::pointwise(options.number("inChannels", None)?, options.number("outChannels", None)?),
        _ => Conv2d::new(
            options.number("inChannels", None)?,
            options.number("outChannels", None)?,
            options.extent("kernelSize", None)?,
        ),
    };
    if kind.name != "depthwise" {
        conv.groups = options.number("groups", Some(1))?;
    }
    conv.stride = options.extent("stride", Some(1))?;
    conv.padding = options.padding()?;
    conv.dilation = options.extent("dilation", Some(1))?;
    conv.bias = weights.bias.is_some();
    conv.activation = options.activation()?;
    conv.residual = options.residual()?;
    conv.scaled = options.flag("scaled")?;
    Ok((Chain::from(conv).with_dtype(dtype(&options.get("dtype"))?), vec![weights]))
}

/// A separable convolution and the weights of its halves.
pub fn separable(options: &JsValue, weights: &JsValue) -> Result<(Chain, Vec<OwnedWeights>), JsValue> {
    let known =
        ["inChannels", "outChannels", "kernelSize", "stride", "padding", "dilation", "activation", "residual", "dtype"];
    let options = Options::of("separable", options, &known)?;
    let names = [["depthwise", "depthwiseBias"], ["pointwise", "pointwiseBias"]];
    let weights = Options::of("the weights", weights, &names.concat())?;
    let [depthwise, pointwise] = names.map(|names| weights_of(&weights, names));
    let (depthwise, pointwise) = (depthwise?, pointwise?);
    let [inputs, outputs] = [options.number("inChannels", None)?, options.number("outChannels", None)?];
    let mut separable = Separable::new(inputs, outputs, options.extent("kernelSize", None)?)
        .stride(options.extent("stride", Some(1))?)
        .dilation(options.extent("dilation", Some(1))?)
        .activation(options.activation()?)
        .residual(options.residual()?);
    separable.depthwise.padding = options.padding()?;
    separable.depthwise.bias = depthwise.bias.is_some();
    separable.pointwise.bias = pointwise.bias.is_some();
    Ok((Chain::from(separable).with_dtype(dtype(&options.get("dtype"))?), vec![depthwise, pointwise]))
}

/// The weights of a convolution.
fn weights(object: &JsValue) -> Result<OwnedWeights, JsValue> {
    const NAMES: [&str; 2] = ["weight", "bias"];
    weights_of(&Options::of("the weights", object, &NAMES)?, NAMES)
}

/// Weights under two names, of which the second may be missing.
fn weights_of(weights: &Options<'_>, [weight, bias]: [&str; 2]) -> Result<OwnedWeights, JsValue> {
    let values = |name: &str| floats(&weights.get(name), &format!("the weights' {name}"));
    let bias = if weights.get(bias).is_undefined() { None } else { Some(values(bias)?) };
    Ok(OwnedWeights { weight: values(weight)?, bias })
}

/// Weights of several convolutions.
pub fn list_of_weights(list: &JsValue) -> Result<Vec<OwnedWeights>, JsValue> {
    let Some(list) = list.dyn_ref::<Array>() else {
        return Err(refused("weights must be an array, with an object for each convolution"));
    };
    list.iter().map(|each| weights(&each)).collect()
}

/// A layout, NCHW if there is none.
pub fn layout(value: &JsValue) -> Result<Layout, JsValue> {
    match value.as_string().as_deref() {
        Some("nchw") => Ok(Layout::Nchw),
        Some("nhwc") => Ok(Layout::Nhwc),
        None if value.is_undefined() => Ok(Layout::Nchw),
        _ => Err(refused(&format!("a layout is nchw or nhwc, not {}", text(value)))),
    }
}

/// An element type, f32 if there is none.
pub fn dtype(value: &JsValue) -> Result<DType, JsValue> {
    match value.as_string() {
        Some(word) => word.parse().map_err(failed),
        None if value.is_undefined() => Ok(DType::F32),
        None => Err(refused(&format!("an element type is f32 or f16, not {}", text(value)))),
    }
}

/// A whole number that is not negative.
pub fn whole(value: &JsValue) -> Option<u32> {
    value
        .as_f64()
        .filter(|number| number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(number))
        .map(|n| n as u32)
}

/// A value in words: of an object what it is, since to write out a large one would take seconds.
pub fn text(value: &JsValue) -> String {
    match value.dyn_ref::<Array>() {
        Some(array) if array.length() <= 8 => {
            let items: Vec<_> = array.iter().map(|item| kind(&item)).collect();
            format!("[{}]", items.join(", "))
        }
        _ => kind(value),
    }
}

fn kind(value: &JsValue) -> String {
    let get = |of: &JsValue, name: &str| Reflect::get(of, &name.into()).unwrap_or(JsValue::UNDEFINED);
    if !value.is_object() {
        // `JsValue(undefined)`
        let words = format!("{value:?}");
        let words = words.strip_prefix("JsValue(").and_then(|words| words.strip_suffix(')')).unwrap_or(&words);
        return words.chars().take(60).collect();
    }
    let name = get(&get(value, "constructor"), "name").as_string().unwrap_or_else(|| "object".into());
    match get(value, "length").as_f64() {
        Some(length) => format!("{name} of length {length}"),
        None => name,
    }
}
