//! The devices by name, and in which formats they store numbers.

use std::fmt;
use std::str::FromStr;

use super::Capacity;
use crate::checkpoint::Dtype;
use crate::error::{Error, Result};

/// Which device to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The first usable GPU if there is one, else the processor ([`Device::resolve`]).
    Auto,
    /// The processor: plain Rust, the reference for every other device.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its number.
    Cuda(usize),
    /// The GPU's own kernels, run on the processor: slow, to prove them.
    Emulated,
}

impl Device {
    /// What a step holds at most where nothing is said. A GPU reads all weights for every step of a prompt, so steps
    /// are as long as the units that multiply need to be busy. A processor is busy with few, and what else runs waits
    /// for the end of each step; so does the emulator, which is a processor, and a slow one.
    pub(crate) fn capacity(self) -> Capacity {
        match self {
            Device::Cuda(_) => Capacity { images: 32, tokens: 2048 },
            Device::Cpu | Device::Emulated | Device::Auto => Capacity::LEAST,
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbered = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        match (text, numbered) {
            ("auto", _) => Ok(Device::Auto),
            ("cpu", _) => Ok(Device::Cpu),
            ("cuda", _) => Ok(Device::Cuda(0)),
            ("emulated", _) => Ok(Device::Emulated),
            (_, Some(index)) => Ok(Device::Cuda(index)),
            _ => Err(Error::argument(format!("device: expected auto, cpu, cuda, cuda:N or emulated, found {text}"))),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => formatter.write_str("auto"),
            Device::Cpu => formatter.write_str("cpu"),
            Device::Cuda(index) => write!(formatter, "cuda:{index}"),
            Device::Emulated => formatter.write_str("emulated"),
        }
    }
}

/// Whether a device stores numbers as was asked: the processor in f32, whose products may be in bf16, kernels in 16
/// bits with sums in f32.
pub(super) fn check_dtype(device: Device, dtype: Option<Dtype>) -> Result<()> {
    match (device, dtype) {
        (_, None) | (Device::Cpu, Some(Dtype::F32 | Dtype::Bf16)) => Ok(()),
        (Device::Cpu, Some(found)) => {
            Err(Error::argument(format!("dtype: expected f32 or bf16 on cpu, found {found}")))
        }
        (_, Some(Dtype::F32)) => Err(Error::argument(format!("dtype: expected bf16 or f16 on {device}, found f32"))),
        (_, Some(Dtype::Bf16 | Dtype::F16)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for device in [Device::Auto, Device::Cpu, Device::Cuda(3), Device::Emulated] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        for wrong in ["", "cuda:", "cuda:-1", "cuda:x", "gpu", "CPU"] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }
}
