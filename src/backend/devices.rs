//! What this machine can run on, for people who choose a device.

use std::fmt;
use std::fs::read_to_string;
use std::thread::available_parallelism;

use super::gpu::{COMPILED, cuda};
use super::{Capacity, Device};
use crate::error::Error;

/// A device, or why there is none of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// What to choose it by.
    pub device: Device,
    /// Its name, as its maker gives it.
    pub name: Option<String>,
    /// Cores, or multiprocessors.
    pub units: Option<u32>,
    /// Of a GPU: major and minor number.
    pub compute_capability: Option<(u32, u32)>,
    /// Bytes of memory in all.
    pub memory_total: Option<u64>,
    /// Bytes of memory that are free now.
    pub memory_free: Option<u64>,
    /// Of a GPU: the architecture its kernels were compiled for.
    pub kernels: Option<String>,
    /// Tokens that a step holds at most where nothing is said and memory allows.
    pub max_batched_tokens: usize,
    /// Images that a step encodes, likewise.
    pub max_batched_images: usize,
    /// Why it cannot be used; none if it can.
    pub problem: Option<String>,
}

impl DeviceInfo {
    fn new(device: Device) -> DeviceInfo {
        let Capacity { images, tokens } = device.capacity();
        DeviceInfo {
            device,
            name: None,
            units: None,
            compute_capability: None,
            memory_total: None,
            memory_free: None,
            kernels: None,
            max_batched_tokens: tokens,
            max_batched_images: images,
            problem: None,
        }
    }
}

impl From<cuda::FoundDevice> for DeviceInfo {
    fn from(found: cuda::FoundDevice) -> Self {
        let (kernels, problem) = match found.kernels {
            Ok(architecture) => (Some(architecture), None),
            Err(reason) => (None, Some(reason)),
        };
        DeviceInfo {
            name: Some(found.name),
            units: Some(found.multiprocessors),
            compute_capability: Some(found.compute_capability),
            memory_total: Some(found.memory_total),
            memory_free: found.memory_free,
            kernels,
            problem,
            ..DeviceInfo::new(Device::Cuda(found.index))
        }
    }
}

/// The devices of this machine: the processor, the emulator if it is built in, and each GPU or why there is none.
pub fn devices() -> Vec<DeviceInfo> {
    let units = available_parallelism().ok().map(|cores| cores.get() as u32);
    let (memory_total, memory_free) = (host_memory("MemTotal:"), memory_available());
    let host = |device| DeviceInfo { units, memory_total, memory_free, ..DeviceInfo::new(device) };
    let mut devices = vec![host(Device::Cpu)];
    if cfg!(feature = "emulated") {
        devices.push(host(Device::Emulated));
    }
    let absent = |problem| DeviceInfo { problem: Some(problem), ..DeviceInfo::new(Device::Cuda(0)) };
    match cuda::devices(&COMPILED) {
        Ok(found) if found.is_empty() => devices.push(absent("the NVIDIA driver sees no GPU".into())),
        Ok(found) => devices.extend(found.into_iter().map(DeviceInfo::from)),
        Err(Error::Device { message, .. }) => devices.push(absent(message)),
        Err(other) => devices.push(absent(other.to_string())),
    }
    devices
}

impl Device {
    /// The device itself: for [`Device::Auto`] the first GPU that can be used, else the processor. Then also why no GPU
    /// can, in a program with kernels and on a machine with an NVIDIA driver.
    pub fn resolve(self) -> (Device, Option<String>) {
        if self != Device::Auto {
            return (self, None);
        }
        match cuda::first_usable(&COMPILED) {
            Some(Ok(index)) => (Device::Cuda(index), None),
            Some(Err(reason)) => (Device::Cpu, Some(reason)),
            None => (Device::Cpu, None),
        }
    }
}

/// Bytes of the processor's memory that can be had without swapping, where the system tells.
pub(super) fn memory_available() -> Option<u64> {
    host_memory("MemAvailable:")
}

/// Bytes that Linux gives under that key; none on other systems.
fn host_memory(key: &str) -> Option<u64> {
    let text = read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:9} ", self.device.to_string())?;
        let gibibytes = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
        let memory = match (self.memory_free, self.memory_total) {
            (Some(free), Some(total)) => Some(format!("{} of {} free", gibibytes(free), gibibytes(total))),
            (None, Some(total)) => Some(gibibytes(total)),
            (_, None) => None,
        };
        let units = if self.compute_capability.is_some() { "multiprocessors" } else { "cores" };
        let parts = [
            self.name.clone(),
            self.compute_capability.map(|(major, minor)| format!("compute capability {major}.{minor}")),
            self.units.map(|count| format!("{count} {units}")),
            memory,
            self.kernels.as_ref().map(|architecture| format!("kernels for {architecture}")),
            self.problem
                .is_none()
                .then(|| format!("steps of {} tokens and {} images", self.max_batched_tokens, self.max_batched_images)),
            self.problem.as_ref().map(|problem| format!("unusable: {problem}")),
        ];
        formatter.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_always_there_and_graphics_are_or_say_why_not() {
        let devices = devices();
        assert_eq!((devices[0].device, &devices[0].problem), (Device::Cpu, &None));
        let gpu = devices.last().unwrap();
        assert!(matches!(gpu.device, Device::Cuda(_)));
        assert!(gpu.kernels.is_some() || gpu.problem.is_some());
        for line in devices.iter().map(DeviceInfo::to_string) {
            assert!(!line.contains('\n') && !line.ends_with(' '), "{line}");
        }
    }
}
