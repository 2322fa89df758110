//! A device's primary context, and what is held in it: each thing is given back when dropped, on a lost device too.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_void};
use std::fmt::Display;
use std::mem::MaybeUninit;
use std::sync::{Arc, OnceLock};

use cudarc::driver::sys;
use cudarc::driver::sys::CUdevice_attribute as Attribute;

use super::functions::{Functions, SUCCESS, Status};
use crate::error::{Error, Result};

/// A status that `sys` has a name for.
pub const fn status(result: sys::CUresult) -> Status {
    result as Status
}

/// A device, without its context.
#[derive(Clone, Copy)]
pub struct CudaDevice {
    pub cuda: &'static Functions,
    pub index: usize,
    device: sys::CUdevice,
}

impl CudaDevice {
    /// The device of that number.
    pub fn new(cuda: &'static Functions, index: usize) -> Result<CudaDevice> {
        let number = c_int::try_from(index).expect("an index below the count of devices");
        let mut gpu = CudaDevice { cuda, index, device: 0 };
        // SAFETY: the driver writes one integer.
        let status = unsafe { (cuda.device)(&mut gpu.device, number) };
        gpu.check("cuDeviceGet", status)?;
        Ok(gpu)
    }

    /// "cuda:0"
    pub fn label(&self) -> String {
        format!("cuda:{}", self.index)
    }

    pub fn name(&self) -> Result<String> {
        let mut name = [0; 256];
        // SAFETY: the driver writes a text of at most that length, its end included.
        let status = unsafe { (self.cuda.device_name)(name.as_mut_ptr(), name.len() as c_int, self.device) };
        self.check("cuDeviceGetName", status)?;
        let bytes = name.map(|byte| byte as u8);
        let text = CStr::from_bytes_until_nul(&bytes).expect("the driver ends its texts");
        Ok(text.to_string_lossy().into_owned())
    }

    /// Bytes of memory in all.
    pub fn memory(&self) -> Result<u64> {
        let mut bytes = 0;
        // SAFETY: the driver writes one integer.
        self.check("cuDeviceTotalMem", unsafe { (self.cuda.device_memory)(&mut bytes, self.device) })?;
        Ok(bytes as u64)
    }

    /// Major and minor number.
    pub fn compute_capability(&self) -> Result<(u32, u32)> {
        let major = self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        Ok((major, self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?))
    }

    pub fn multiprocessors(&self) -> Result<u32> {
        self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    }

    /// Whether blocks of a launch may wait for each other.
    pub fn cooperative(&self) -> Result<bool> {
        Ok(self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0)
    }

    /// Most shared memory of one block, bytes.
    pub fn shared_bytes_max(&self) -> Result<u32> {
        self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
    }

    fn attribute(&self, attribute: Attribute) -> Result<u32> {
        let mut value = 0;
        // SAFETY: the driver writes one integer.
        let status = unsafe { (self.cuda.device_attribute)(&mut value, attribute, self.device) };
        self.check("cuDeviceGetAttribute", status)?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    fn check(&self, what: impl Display, status: Status) -> Result<()> {
        if status == SUCCESS {
            return Ok(());
        }
        Err(Error::device(self.label(), format!("{what}: {}", self.cuda.describe(status))))
    }
}

/// A device's primary context, retained. It is current during each call and not between calls, so that any thread may
/// use it, several devices may be used from one thread, and a program that uses CUDA itself finds its own as it was.
pub struct Context {
    pub gpu: CudaDevice,
    handle: sys::CUcontext,
    /// Why the device answers no more, once it does not.
    lost: OnceLock<String>,
}

/// While it lives, a context is on top of this thread's stack.
struct Current(&'static Functions);

impl Drop for Current {
    fn drop(&mut self) {
        let mut ours = std::ptr::null_mut();
        // SAFETY: the driver writes one handle. What it may return besides is of work begun earlier, and comes again.
        unsafe { (self.0.context_pop)(&mut ours) };
    }
}

// SAFETY: the driver lets any thread use a context.
unsafe impl Send for Context {}
// SAFETY: as above, and at the same time.
unsafe impl Sync for Context {}

impl Context {
    pub fn retain(gpu: CudaDevice) -> Result<Arc<Context>> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the driver writes one handle.
        gpu.check("cuDevicePrimaryCtxRetain", unsafe { (gpu.cuda.context_retain)(&mut handle, gpu.device) })?;
        Ok(Arc::new(Context { gpu, handle, lost: OnceLock::new() }))
    }

    pub fn is_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// An error of this device.
    pub fn error(&self, message: impl Display) -> Error {
        Error::device(self.gpu.label(), message)
    }

    /// The status of a call of the driver with this context current.
    ///
    /// # Errors
    /// A device that is lost already: nothing is called.
    pub fn try_call(&self, call: impl FnOnce(&Functions) -> Status) -> Result<Status> {
        if let Some(message) = self.lost.get() {
            return Err(self.error(message));
        }
        Ok(match self.enter() {
            Ok(_current) => call(self.gpu.cuda),
            Err(failed) => failed,
        })
    }

    /// As [`Context::try_call`], with every status but success an error. `what` says what could not be done.
    pub fn call(&self, what: impl Display, call: impl FnOnce(&Functions) -> Status) -> Result<()> {
        let status = self.try_call(call)?;
        self.check(what, status)
    }

    /// Calls the driver even if the device is lost: to end or to give back something.
    fn call_always(&self, call: impl FnOnce(&Functions) -> Status) -> Status {
        // Tried twice, since what is not given back now never is.
        match self.enter().or_else(|_| self.enter()) {
            Ok(_current) => call(self.gpu.cuda),
            Err(failed) => failed,
        }
    }

    /// Makes this context current until what it returns is dropped.
    fn enter(&self) -> std::result::Result<Current, Status> {
        // SAFETY: the context is retained until `self` is dropped.
        match unsafe { (self.gpu.cuda.context_push)(self.handle) } {
            SUCCESS => Ok(Current(self.gpu.cuda)),
            failed => Err(failed),
        }
    }

    /// What could be done, or nothing where it was only refused.
    ///
    /// # Errors
    /// A device that is lost.
    pub fn unless_refused<T>(&self, outcome: Result<T>) -> Result<Option<T>> {
        if self.is_lost() { outcome.map(Some) } else { Ok(outcome.ok()) }
    }

    /// The error for a status, if it is one; remembers that the device is lost.
    pub fn check(&self, what: impl Display, status: Status) -> Result<()> {
        if status == SUCCESS {
            return Ok(());
        }
        let message = format!("{what}: {}", self.gpu.cuda.describe(status));
        if !loses_device(status) {
            return Err(self.error(message));
        }
        Err(self.error(self.lost.get_or_init(|| format!("{message}; the device is lost to this process"))))
    }

    /// Bytes of memory that are free, and bytes in all.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the driver writes two integers.
        self.call("cuMemGetInfo", |cuda| unsafe { (cuda.memory_info)(&mut free, &mut total) })?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let cuda = self.gpu.cuda;
        // SAFETY: everything in the context holds it, so nothing is in it any more.
        unsafe { (cuda.context_release)(self.gpu.device) };
    }
}

/// Whether a status means that nothing in this context will work any more: a fault of the hardware, or of a kernel that
/// ran. Calls that were refused, for want of memory or for their arguments, leave the device as it was.
fn loses_device(status: Status) -> bool {
    use sys::CUresult as R;
    const FAULTS: &[R] = &[
        R::CUDA_ERROR_DEINITIALIZED,
        R::CUDA_ERROR_ECC_UNCORRECTABLE,
        R::CUDA_ERROR_NVLINK_UNCORRECTABLE,
        R::CUDA_ERROR_CONTAINED,
        R::CUDA_ERROR_ILLEGAL_ADDRESS,
        R::CUDA_ERROR_LAUNCH_TIMEOUT,
        R::CUDA_ERROR_CONTEXT_IS_DESTROYED,
        R::CUDA_ERROR_ASSERT,
        R::CUDA_ERROR_HARDWARE_STACK_ERROR,
        R::CUDA_ERROR_ILLEGAL_INSTRUCTION,
        R::CUDA_ERROR_MISALIGNED_ADDRESS,
        R::CUDA_ERROR_INVALID_ADDRESS_SPACE,
        R::CUDA_ERROR_INVALID_PC,
        R::CUDA_ERROR_LAUNCH_FAILED,
        R::CUDA_ERROR_TENSOR_MEMORY_LEAK,
        R::CUDA_ERROR_EXTERNAL_DEVICE,
        R::CUDA_ERROR_UNKNOWN,
    ];
    FAULTS.iter().any(|&fault| status == fault as Status)
}

/// Something of the driver's, given back when dropped.
pub struct Owned<H: Copy> {
    context: Arc<Context>,
    handle: H,
    give_back: unsafe extern "C" fn(H) -> Status,
}

/// A stream of work.
pub type Stream = Owned<sys::CUstream>;
/// A mark in a stream.
pub type Event = Owned<sys::CUevent>;
/// Compiled kernels.
pub type Module = Owned<sys::CUmodule>;
/// A captured sequence of launches.
pub type Graph = Owned<sys::CUgraphExec>;
/// Memory of the device.
pub type Memory = Owned<sys::CUdeviceptr>;

// SAFETY: the driver lets any thread use its handles, as long as their context is current.
unsafe impl<H: Copy> Send for Owned<H> {}

impl<H: Copy> Owned<H> {
    /// What `make` makes: it writes a handle if it returns success.
    fn new(
        context: &Arc<Context>,
        what: impl Display,
        give_back: unsafe extern "C" fn(H) -> Status,
        make: impl FnOnce(&Functions, *mut H) -> Status,
    ) -> Result<Self> {
        let mut handle = MaybeUninit::uninit();
        context.call(what, |cuda| make(cuda, handle.as_mut_ptr()))?;
        // SAFETY: the driver wrote it, since it returned success.
        Ok(Owned { context: context.clone(), handle: unsafe { handle.assume_init() }, give_back })
    }

    pub fn handle(&self) -> H {
        self.handle
    }
}

impl<H: Copy> Drop for Owned<H> {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is used no more. Nobody is left to tell if this fails.
        self.context.call_always(|_| unsafe { (self.give_back)(self.handle) });
    }
}

impl Stream {
    pub fn create(context: &Arc<Context>) -> Result<Self> {
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the driver writes one handle.
        Self::new(context, "cuStreamCreate", context.gpu.cuda.stream_destroy, |cuda, handle| unsafe {
            (cuda.stream_create)(handle, flags)
        })
    }

    /// Waits for all that was started.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the stream is ours.
        self.context.call("waiting for the device", |cuda| unsafe { (cuda.stream_wait)(self.handle) })
    }

    /// Starts what was captured; false if it was refused.
    pub fn replay(&self, graph: &Graph) -> Result<bool> {
        // SAFETY: both are ours.
        let started =
            self.context.call("cuGraphLaunch", |cuda| unsafe { (cuda.graph_launch)(graph.handle, self.handle) });
        Ok(self.context.unless_refused(started)?.is_some())
    }

    /// Keeps what `start` starts on this stream instead of running it; none if it was refused. The stream is as before.
    pub fn capture(&self, start: impl FnOnce() -> Result<()>) -> Result<Option<Graph>> {
        self.context.unless_refused(self.try_capture(start))
    }

    fn try_capture(&self, start: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let context = &self.context;
        // Other threads may go on as they like.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours.
        context.call("cuStreamBeginCapture", |cuda| unsafe { (cuda.capture_begin)(self.handle, mode) })?;
        let started = start();
        let mut graph = std::ptr::null_mut();
        // SAFETY: the stream is ours; the driver writes a handle or null. It must end whatever happened.
        let ended = context.call_always(|cuda| unsafe { (cuda.capture_end)(self.handle, &mut graph) });
        let give_back = context.gpu.cuda.graph_destroy;
        let graph = (!graph.is_null()).then(|| Owned { context: context.clone(), handle: graph, give_back });
        started?;
        context.check("cuStreamEndCapture", ended)?;
        let graph = graph.expect("a capture that ended well has a graph");
        let give_back = context.gpu.cuda.graph_exec_destroy;
        // SAFETY: the graph is ours; the driver writes one handle.
        Graph::new(context, "cuGraphInstantiate", give_back, |cuda, handle| unsafe {
            (cuda.graph_instantiate)(handle, graph.handle, 0)
        })
    }
}

impl Event {
    /// An event that also takes the time, or one that only marks.
    pub fn create(context: &Arc<Context>, timing: bool) -> Result<Self> {
        use sys::CUevent_flags as Flags;
        let flags = if timing { Flags::CU_EVENT_DEFAULT } else { Flags::CU_EVENT_DISABLE_TIMING } as u32;
        // SAFETY: the driver writes one handle.
        Self::new(context, "cuEventCreate", context.gpu.cuda.event_destroy, |cuda, handle| unsafe {
            (cuda.event_create)(handle, flags)
        })
    }

    /// Marks what was started on `stream` so far.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both are ours.
        self.context.call("cuEventRecord", |cuda| unsafe { (cuda.event_record)(self.handle, stream.handle) })
    }

    /// Waits for what was last marked; not at all if nothing was.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the event is ours.
        self.context.call("waiting for the device", |cuda| unsafe { (cuda.event_wait)(self.handle) })
    }

    /// Milliseconds from an earlier event to this one; both have passed.
    pub fn since(&self, earlier: &Event) -> Result<f32> {
        let mut milliseconds = 0.0;
        // SAFETY: both are ours; the driver writes one number.
        self.context.call("cuEventElapsedTime", |cuda| unsafe {
            (cuda.event_elapsed)(&mut milliseconds, earlier.handle, self.handle)
        })?;
        Ok(milliseconds)
    }
}

impl Module {
    /// Loads compiled kernels.
    pub fn load(context: &Arc<Context>, name: &str, image: &[u8]) -> Result<Self> {
        // Images are read in words of 8 bytes, and texts (PTX) to a zero.
        let mut words = vec![0u64; image.len() / 8 + 1];
        bytemuck::cast_slice_mut(&mut words)[..image.len()].copy_from_slice(image);
        let driver = context.gpu.cuda.version_text();
        let what = format!("kernels {name} do not load with this driver (for CUDA {driver})");
        // SAFETY: the driver reads an image that we compiled, and writes one handle.
        Self::new(context, what, context.gpu.cuda.module_unload, |cuda, handle| unsafe {
            (cuda.module_load)(handle, words.as_ptr().cast())
        })
    }

    /// The kernel of that name, if it is in this module. It lives as long as the module.
    pub fn function(&self, kernel: &str) -> Result<Option<Function>> {
        let name = CString::new(kernel).expect("names of kernels are names");
        let mut handle = std::ptr::null_mut();
        let found = self.context.try_call(|cuda| {
            // SAFETY: the module is ours; the driver reads a name and writes one handle.
            unsafe { (cuda.module_function)(&mut handle, self.handle, name.as_ptr()) }
        })?;
        if found == status(sys::CUresult::CUDA_ERROR_NOT_FOUND) {
            return Ok(None);
        }
        self.context.check(format_args!("kernel {kernel}"), found)?;
        Ok(Some(Function { handle, shared_bytes: Function::SHARED_BYTES_PLAIN }))
    }
}

/// A kernel, ready to be started.
#[derive(Clone, Copy)]
pub struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory that it may be started with.
    shared_bytes: u32,
}

// SAFETY: the driver lets any thread use its handles, as long as their context is current.
unsafe impl Send for Function {}

impl Function {
    /// What every kernel may have without being asked.
    const SHARED_BYTES_PLAIN: u32 = 48 * 1024;

    pub fn handle(&self) -> sys::CUfunction {
        self.handle
    }

    /// Lets the kernel be started with so much shared memory.
    pub fn allow_shared(&mut self, context: &Context, kernel: &str, bytes: u32) -> Result<()> {
        if bytes <= self.shared_bytes {
            return Ok(());
        }
        use sys::CUfunction_attribute as Of;
        let set = |attribute, value| {
            let what = format_args!("kernel {kernel} with {bytes} bytes of shared memory");
            // SAFETY: the function lives as long as its module, which is ours.
            context.call(what, |cuda| unsafe { (cuda.function_set)(self.handle, attribute, value) })
        };
        let value = c_int::try_from(bytes).expect("shared memory is small");
        set(Of::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, value)?;
        // Of what the first level of cache and shared memory divide, in hundredths: all that shared memory can have.
        // Else the driver guesses, and may leave room for one block where two would run at a time.
        let all = sys::CUshared_carveout::CU_SHAREDMEM_CARVEOUT_MAX_SHARED as c_int;
        set(Of::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, all)?;
        self.shared_bytes = bytes;
        Ok(())
    }

    /// Blocks of so many threads, with so much shared memory each, that one multiprocessor runs at a time.
    pub fn resident_blocks(&self, context: &Context, kernel: &str, threads: u32, shared_bytes: u32) -> Result<u32> {
        let mut blocks = 0;
        let threads = c_int::try_from(threads).expect("blocks are small");
        context.call(format_args!("kernel {kernel}: its occupancy"), |cuda| {
            // SAFETY: the function lives as long as its module, which is ours; the driver writes one integer.
            unsafe { (cuda.occupancy)(&mut blocks, self.handle, threads, shared_bytes as usize) }
        })?;
        Ok(u32::try_from(blocks).unwrap_or(0))
    }

    /// Bytes of the kernel's one parameter; none if this driver cannot tell.
    pub fn argument_bytes(&self, context: &Context, kernel: &str) -> Result<Option<usize>> {
        let Some(parameter_info) = context.gpu.cuda.parameter_info else { return Ok(None) };
        let (mut offset, mut bytes) = (0, 0);
        context.call(format_args!("kernel {kernel}: its arguments"), |_| {
            // SAFETY: the function lives as long as its module, which is ours; the driver writes two integers.
            unsafe { parameter_info(self.handle, 0, &mut offset, &mut bytes) }
        })?;
        Ok(Some(bytes))
    }
}

impl Memory {
    /// Takes memory of the device.
    pub fn allocate(context: &Arc<Context>, bytes: u64) -> Result<Self> {
        let mut address = 0;
        // SAFETY: the driver writes one address.
        let taken = context.try_call(|cuda| unsafe { (cuda.allocate)(&mut address, bytes as usize) })?;
        if taken == status(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY) {
            let (free, total) = context.memory()?;
            let message = format!("out of memory: {bytes} bytes wanted, {free} of {total} are free");
            return Err(context.error(message));
        }
        context.check(format_args!("{bytes} bytes of memory"), taken)?;
        Ok(Owned { context: context.clone(), handle: address, give_back: context.gpu.cuda.free })
    }
}

/// Memory of the host that the device copies from and to by itself.
pub struct Pinned {
    memory: Owned<*mut c_void>,
    bytes: usize,
}

impl Pinned {
    pub fn allocate(context: &Arc<Context>, bytes: usize) -> Result<Self> {
        let what = format!("{bytes} bytes of pinned host memory");
        // SAFETY: the driver writes one pointer.
        let memory = Owned::new(context, what, context.gpu.cuda.free_pinned, |cuda, handle| unsafe {
            (cuda.allocate_pinned)(handle, bytes, 0)
        })?;
        // SAFETY: the driver gave so many bytes, for us alone.
        unsafe { memory.handle.cast::<u8>().write_bytes(0, bytes) };
        Ok(Pinned { memory, bytes })
    }

    /// The memory. No copy from or to it may be under way.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes are ours, written at least once, and borrowed with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.memory.handle.cast(), self.bytes) }
    }
}
