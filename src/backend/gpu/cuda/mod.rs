//! NVIDIA GPUs, through the CUDA driver. libcuda is looked for when a device is asked for, never before.
//!
//! All work of a device goes to one stream, in the order of the calls. The host runs ahead of it: what it sends lies in
//! pinned buffers until the device has copied it.

#![allow(unsafe_code)]

mod context;
mod found;
mod functions;
mod staging;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::sys::CUresult;

use context::{Context, CudaDevice, Event, Function, Graph, Memory, Module, Stream, status};
use functions::{Functions, Status};
use staging::Staging;

pub use found::{FoundDevice, devices, first_usable};

use super::arguments::Kernel;
use super::driver::{Address, Driver, GraphHandle, Launch, Properties};
use crate::error::{Error, Result};

/// Bytes of one staging buffer.
const STAGING_BYTES: usize = 16 << 20;

/// The least compute capability that kernels are compiled for.
const COMPUTE_CAPABILITY_MIN: (u32, u32) = (8, 0);

/// What to do about a program without kernels.
const NO_KERNELS: &str = "built without kernels: install nvcc of CUDA 13 and build again";

/// What a program has for GPUs: nothing, where it was built without nvcc.
#[derive(Clone, Copy)]
pub struct Compiled<'a> {
    /// Name of each source of kernels, and its fat binary.
    pub modules: &'a [(&'a str, &'a [u8])],
    /// What they have code for, as nvcc names it: "sm_80" and "sm_90a" are machine code, "compute_80" can be compiled
    /// further by a driver.
    pub architectures: &'a [&'a str],
    /// The release of CUDA whose nvcc compiled them.
    pub release: (u32, u32),
}

/// A GPU with our kernels. What it holds is given back in the order of the fields.
pub struct CudaDriver {
    /// By the number of their `GraphHandle`; none where it was forgotten.
    graphs: Vec<Option<Graph>>,
    memory: BTreeMap<Address, Memory>,
    staging: Staging,
    /// Kernels that were started before; they live in `modules`.
    functions: HashMap<Kernel, Function>,
    /// Blocks of cooperative kernels that one multiprocessor runs at a time, by threads and bytes of shared memory.
    resident: HashMap<(Kernel, u32, u32), u32>,
    modules: Vec<Module>,
    stream: Stream,
    /// Where the clock was started.
    clock: Option<Event>,
    context: Arc<Context>,
    properties: Properties,
}

/// Opens the GPU of that number with the compiled kernels.
///
/// # Errors
/// No driver, one that is too old for the kernels, no such GPU, one that they do not serve, or no kernels.
pub fn open(index: usize, compiled: &Compiled) -> Result<CudaDriver> {
    open_with(index, compiled, STAGING_BYTES)
}

fn open_with(index: usize, compiled: &Compiled, staging_bytes: usize) -> Result<CudaDriver> {
    let cuda = Functions::get()?;
    let count = cuda.devices()?;
    if index >= count {
        let found = match count {
            1 => "there is one device, number 0".into(),
            _ => format!("there are {count} devices, numbers from 0"),
        };
        return Err(Error::device(format!("cuda:{index}"), found));
    }
    let gpu = CudaDevice::new(cuda, index)?;
    let name = gpu.name()?;
    if let Err(reason) = found::serving(gpu, compiled)? {
        return Err(Error::device(gpu.label(), format!("{name}: {reason}")));
    }
    let (multiprocessors, shared_bytes_max) = (gpu.multiprocessors()?, gpu.shared_bytes_max()?);
    let cooperative = gpu.cooperative()?;
    let context = Context::retain(gpu)?;
    let stream = Stream::create(&context)?;
    let load = |(name, image): &(&str, &[u8])| Module::load(&context, name, image);
    let modules = compiled.modules.iter().map(load).collect::<Result<_>>()?;
    let staging = Staging::allocate(&context, staging_bytes)?;
    let (memory_free, memory_total) = context.memory()?;
    let properties =
        Properties { name, multiprocessors, memory_total, memory_free, shared_bytes_max, cooperative, guarded: false };
    Ok(CudaDriver {
        graphs: Vec::new(),
        memory: BTreeMap::new(),
        staging,
        functions: HashMap::new(),
        resident: HashMap::new(),
        modules,
        stream,
        clock: None,
        context,
        properties,
    })
}

/// Whether a status says that the device does not take cooperative launches, or none as large, whatever it said before:
/// under a debugger or where several processes share it, it may have less room than it has multiprocessors.
fn refuses_cooperative(found: Status) -> bool {
    let refusals = [CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, CUresult::CUDA_ERROR_NOT_SUPPORTED];
    refusals.into_iter().any(|refusal| found == status(refusal))
}

impl CudaDriver {
    /// The kernel that `launch` starts, ready for it.
    fn function(&mut self, launch: &Launch) -> Result<Function> {
        let kernel = launch.kernel;
        let mut function = match self.functions.get(&kernel) {
            Some(&function) => function,
            None => self.find(launch)?,
        };
        function.allow_shared(&self.context, kernel.name(), launch.shared_bytes)?;
        self.functions.insert(kernel, function);
        Ok(function)
    }

    fn find(&self, launch: &Launch) -> Result<Function> {
        let (kernel, given) = (launch.kernel, launch.arguments.bytes().len());
        let mut found = None;
        for module in &self.modules {
            found = module.function(kernel.name())?;
            if found.is_some() {
                break;
            }
        }
        let function = found.ok_or_else(|| self.context.error(format_args!("kernel {kernel} is not in this build")))?;
        match function.argument_bytes(&self.context, kernel.name())? {
            Some(wanted) if wanted != given => {
                let message = format!("kernel {kernel} takes {wanted} bytes of arguments, not {given}");
                Err(self.context.error(message))
            }
            _ => Ok(function),
        }
    }

    /// Puts a launch on the stream; the driver's answer.
    fn start(&self, function: Function, launch: &Launch) -> Result<Status> {
        let Launch { grid: [x, y, z], threads, shared_bytes, cooperative, arguments, .. } = launch;
        let (x, y, z, threads, shared_bytes) = (*x, *y, *z, *threads, *shared_bytes);
        let mut parameters = [arguments.bytes().as_ptr().cast_mut().cast::<c_void>()];
        let (handle, stream, parameters) = (function.handle(), self.stream.handle(), parameters.as_mut_ptr());
        self.context.try_call(|cuda| {
            if *cooperative {
                // SAFETY: the driver copies the kernel's one parameter, of the size that `find` saw, before it returns.
                // What the kernel does with it is the kernel's.
                unsafe { (cuda.launch_cooperative)(handle, x, y, z, threads, 1, 1, shared_bytes, stream, parameters) }
            } else {
                // SAFETY: as above.
                unsafe { (cuda.launch)(handle, x, y, z, threads, 1, 1, shared_bytes, stream, parameters, null_mut()) }
            }
        })
    }

    /// The error of a launch that was answered so, if it is one.
    fn check_start(&self, launch: &Launch, answer: Status) -> Result<()> {
        let Launch { kernel, grid: [x, y, z], threads, shared_bytes, .. } = launch;
        let what =
            format_args!("kernel {kernel} of {x} x {y} x {z} blocks, {threads} threads, {shared_bytes} bytes shared");
        self.context.check(what, answer)
    }

    /// Copies `bytes` of staging memory, which `fill` writes and counts, to the device.
    fn send(&mut self, to: Address, bytes: usize, fill: &mut dyn FnMut(&mut [u8]) -> Result<usize>) -> Result<()> {
        let staged = self.staging.free(&self.stream, bytes)?;
        let filled = fill(staged)?;
        assert!(filled <= bytes, "more than the buffer holds");
        let from = staged.as_ptr().cast::<c_void>();
        self.staging.keep(filled);
        // SAFETY: the bytes were just written, and stay as they are, pinned, until the stream has passed this copy.
        self.context.call(format_args!("copying {filled} bytes to the device"), |cuda| unsafe {
            (cuda.copy_in)(to.0, from, filled, self.stream.handle())
        })
    }
}

impl Driver for CudaDriver {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&mut self, bytes: u64) -> Result<Address> {
        let memory = Memory::allocate(&self.context, bytes.max(1))?;
        let address = Address(memory.handle());
        self.memory.insert(address, memory);
        Ok(address)
    }

    fn free(&mut self, address: Address) {
        // The driver waits for what is still running.
        let memory = self.memory.remove(&address);
        assert!(memory.is_some() || address == Address::NULL, "memory that was not taken");
    }

    fn copy_in(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        let mut to = to;
        for piece in bytes.chunks(self.staging.bytes()) {
            self.send(to, piece.len(), &mut |staged| {
                staged.copy_from_slice(piece);
                Ok(piece.len())
            })?;
            to = to.plus(piece.len() as u64);
        }
        Ok(())
    }

    fn copy_out(&mut self, from: Address, bytes: &mut [u8]) -> Result<()> {
        let mut from = from;
        for piece in bytes.chunks_mut(self.staging.bytes()) {
            let staged = self.staging.free(&self.stream, piece.len())?;
            let to = staged.as_mut_ptr();
            self.staging.keep(piece.len());
            // SAFETY: the memory is pinned, and not used by anything else until the stream has passed this copy.
            self.context.call(format_args!("copying {} bytes from the device", piece.len()), |cuda| unsafe {
                (cuda.copy_out)(to.cast(), from.0, piece.len(), self.stream.handle())
            })?;
            self.stream.wait()?;
            // SAFETY: the copy is done, and the memory is still ours.
            piece.copy_from_slice(unsafe { std::slice::from_raw_parts(to, piece.len()) });
            self.staging.all_done();
            from = from.plus(piece.len() as u64);
        }
        Ok(())
    }

    fn clear(&mut self, address: Address, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: memory of the device, which holds nothing of the host's.
        self.context.call(format_args!("clearing {bytes} bytes"), |cuda| unsafe {
            (cuda.fill)(address.0, 0, bytes as usize, self.stream.handle())
        })
    }

    fn staging_bytes(&self) -> usize {
        self.staging.bytes()
    }

    fn upload(&mut self, to: Address, fill: &mut dyn FnMut(&mut [u8]) -> Result<usize>) -> Result<()> {
        self.send(to, self.staging.bytes(), fill)
    }

    fn admits(&mut self, launch: &Launch) -> Result<bool> {
        let &Launch { kernel, threads, shared_bytes, .. } = launch;
        let key = (kernel, threads, shared_bytes);
        let resident = match self.resident.get(&key) {
            Some(&resident) => resident,
            // Without an answer there is none that could wait for each other.
            None => {
                let found = self.function(launch)?.resident_blocks(&self.context, kernel.name(), threads, shared_bytes);
                self.context.unless_refused(found)?.unwrap_or(0)
            }
        };
        self.resident.insert(key, resident);
        let blocks: u64 = launch.grid.into_iter().map(u64::from).product();
        let room = u64::from(resident) * u64::from(self.properties.multiprocessors);
        Ok(self.properties.cooperative && blocks <= room)
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        let function = self.function(launch)?;
        let answer = self.start(function, launch)?;
        if launch.cooperative && refuses_cooperative(answer) {
            self.properties.cooperative = false;
        }
        self.check_start(launch, answer)
    }

    fn capture(&mut self, launches: &[Launch]) -> Result<Option<GraphHandle>> {
        // Looked up first: while a stream is captured, nothing may be loaded.
        let functions = launches.iter().map(|launch| self.function(launch)).collect::<Result<Vec<_>>>()?;
        let start = |(&function, launch)| self.check_start(launch, self.start(function, launch)?);
        let Some(graph) = self.stream.capture(|| functions.iter().zip(launches).try_for_each(start))? else {
            return Ok(None);
        };
        let number = self.graphs.iter().position(Option::is_none).unwrap_or(self.graphs.len());
        if number == self.graphs.len() {
            self.graphs.push(None);
        }
        self.graphs[number] = Some(graph);
        Ok(Some(GraphHandle(number)))
    }

    fn replay(&mut self, graph: GraphHandle) -> Result<bool> {
        let graph = self.graphs[graph.0].as_ref().expect("a sequence that was not forgotten");
        self.stream.replay(graph)
    }

    fn drop_graph(&mut self, graph: GraphHandle) {
        // The driver lets a replay that still runs come to its end.
        let graph = self.graphs[graph.0].take();
        assert!(graph.is_some(), "a sequence that was not forgotten");
    }

    fn start_clock(&mut self) -> Result<()> {
        let begin = Event::create(&self.context, true)?;
        begin.record(&self.stream)?;
        self.clock = Some(begin);
        Ok(())
    }

    fn stop_clock(&mut self) -> Result<f64> {
        let begin = self.clock.take().expect("a clock is started before it is stopped");
        let end = Event::create(&self.context, true)?;
        end.record(&self.stream)?;
        self.synchronize()?;
        Ok(f64::from(end.since(&begin)?) / 1000.0)
    }

    fn synchronize(&mut self) -> Result<()> {
        self.stream.wait()?;
        self.staging.all_done();
        Ok(())
    }
}

impl Drop for CudaDriver {
    fn drop(&mut self) {
        // Staging memory may not go while copies use it. A lost device copies no more, and does not answer.
        if !self.context.is_lost() {
            let _ = self.stream.wait();
        }
    }
}
