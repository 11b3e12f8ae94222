//! Why a kernel does not take a run. Errors and `plan` print it.

use std::fmt;

use crate::model::chain::Link;
use crate::model::shape::Layout;

/// A kernel's reason not to take a run.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum Unsupported {
    /// It takes another number of links.
    Links(usize),
    /// It takes no link of this kind.
    Link(&'static str),
    /// It takes no groups, or only as many as channels.
    Groups(u32),
    /// It takes another kernel size.
    KernelSize([u32; 2]),
    /// It takes only a window that is the whole image.
    Window { kernel: [u32; 2], image: [u32; 2] },
    /// It takes another stride.
    Stride([u32; 2]),
    /// It takes no padding.
    Padding([u32; 4]),
    /// It takes another dilation.
    Dilation([u32; 2]),
    /// It is made for a tensor of the other layout.
    Layout(Layout),
    /// Only the last link of a run may add a residual.
    InnerResidual,
    /// It takes no input that is multiplied by a scale.
    Scaled,
    /// The first link is not depthwise or the second not pointwise.
    NotSeparable,
    /// The first link is not pointwise or the second not depthwise.
    NotExpanded,
    /// The links are not a pointwise, a depthwise and a pointwise one.
    NotInverted,
    /// It is a plain matrix product; `pointwise` computes it directly.
    Pointwise,
    /// The device has no subgroup operations.
    NeedsSubgroups,
    /// It is made for software devices.
    NeedsSoftwareDevice,
    /// It is made for GPUs.
    SoftwareDevice,
    /// It is for fewer outputs. More keep a device busy without it, or its shader cannot count them.
    Outputs { count: u64, most: u64 },
    /// An image has too many pixels for a workgroup.
    Pixels { count: u64, most: u64 },
    /// Its input channels do not come in quads, or slices.
    InChannels(u32),
    /// It takes more output channels, in each of the groups.
    OutChannels { each: u32, groups: u32 },
    /// A compiler for the device would move values of an invocation to memory.
    Registers { needed: u32, limit: u64 },
    /// The workgroup is larger than the device's.
    Invocations { needed: u32, limit: u32 },
    /// The workgroup's memory is larger than the device's, or than the kernel takes.
    WorkgroupMemory { needed: u32, limit: u32 },
    /// A buffer, for what it says, is larger than the device can bind.
    Binding { what: &'static str, bytes: u64, limit: u64 },
    /// A shader binds more buffers than the device allows.
    StorageBuffers { needed: u32, limit: u32 },
    /// More workgroups than the device's grid holds.
    Grid { needed: u64, limit: u64 },
    /// It needs more scratch memory than the caller allows, bytes.
    Workspace { needed: u64, limit: u64 },
    /// The driver does not compile its shader; the log has what it said.
    Refused,
}

impl Unsupported {
    /// It takes no link of this link's kind.
    pub(crate) fn link(link: &Link) -> Self {
        Self::Link(link.kind())
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Links(count) => write!(f, "not for a run of {count}"),
            Self::Link(kind) => write!(f, "not for {kind}"),
            Self::Groups(groups) => write!(f, "not for groups: {groups}"),
            Self::KernelSize([rows, columns]) => write!(f, "not for a {rows}x{columns} kernel"),
            Self::Window { kernel: [rows, columns], image: [height, width] } => {
                write!(f, "the window of {rows}x{columns} is not the whole image of {height}x{width}")
            }
            Self::Stride([down, right]) => write!(f, "not for stride {down}x{right}"),
            Self::Padding([top, left, bottom, right]) => write!(f, "not for padding {top},{left},{bottom},{right}"),
            Self::Dilation([down, right]) => write!(f, "not for dilation {down}x{right}"),
            Self::Layout(layout) => write!(f, "not for {layout}"),
            Self::InnerResidual => f.write_str("a residual inside the run"),
            Self::Scaled => f.write_str("not for a scaled input"),
            Self::NotSeparable => f.write_str("not a depthwise and a pointwise link"),
            Self::NotExpanded => f.write_str("not a pointwise and a depthwise link"),
            Self::NotInverted => f.write_str("not a pointwise, a depthwise and a pointwise link"),
            Self::Pointwise => f.write_str("a plain product, `pointwise` is for that"),
            Self::NeedsSoftwareDevice => f.write_str("made for software devices"),
            Self::SoftwareDevice => f.write_str("not for software devices"),
            Self::NeedsSubgroups => f.write_str("the device has no subgroup operations"),
            Self::Outputs { count, most } => write!(f, "for at most {most} outputs, not {count}"),
            Self::Pixels { count, most } => write!(f, "for images of at most {most} pixels, not {count}"),
            Self::InChannels(count) => write!(f, "not for {count} input channels"),
            Self::OutChannels { each, groups: 1 } => write!(f, "not for {each} output channels"),
            Self::OutChannels { each, .. } => write!(f, "not for {each} output channels a group"),
            Self::Registers { needed, limit } => write!(f, "needs {needed} registers, the device has {limit}"),
            Self::Invocations { needed, limit } => write!(f, "needs workgroups of {needed}, the device has {limit}"),
            Self::WorkgroupMemory { needed, limit } => {
                write!(f, "needs {needed} bytes of workgroup memory, the limit is {limit}")
            }
            Self::Binding { what, bytes, limit } => {
                write!(f, "needs a binding of {bytes} bytes for the {what}, the limit is {limit}")
            }
            Self::StorageBuffers { needed, limit } => write!(f, "binds {needed} buffers, the device has {limit}"),
            Self::Grid { needed, limit } => write!(f, "needs {needed} workgroups, the limit is {limit}"),
            Self::Workspace { needed, limit } => {
                write!(f, "needs {needed} bytes of scratch memory, at most {limit} are allowed")
            }
            Self::Refused => f.write_str("the driver refused its shader"),
        }
    }
}
