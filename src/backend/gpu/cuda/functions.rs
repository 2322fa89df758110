//! The functions of the CUDA driver that we call, looked up in libcuda when a device is first asked for. Their results
//! stay plain numbers, since a newer driver may return codes that a binding's enum does not know.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr::null;
use std::sync::OnceLock;

use cudarc::driver::sys;

use crate::error::{Error, Result};

/// What a function of the driver returns; 0 is success.
pub type Status = u32;

/// Success.
pub const SUCCESS: Status = 0;

/// The oldest driver that is tried: its version of CUDA, as `1000 * major + 10 * minor`.
const VERSION_MIN: c_int = 12_000;

macro_rules! functions {
    ($($field:ident: $symbol:literal ($($argument:ty),*);)*) => {
        /// The driver's functions.
        pub struct Functions {
            $(pub $field: unsafe extern "C" fn($($argument),*) -> Status,)*
            /// Drivers before CUDA 12.4 do not have it.
            pub parameter_info: Option<unsafe extern "C" fn(sys::CUfunction, usize, *mut usize, *mut usize) -> Status>,
        }

        impl Functions {
            /// Looks all of them up; the name of the first that is missing.
            fn look_up() -> std::result::Result<Functions, &'static str> {
                // SAFETY: libcuda is a library that may be loaded at any time; the caller has seen that it is there.
                let library = unsafe { sys::culib() };
                Ok(Functions {
                    // SAFETY: these are the signatures of CUDA's header `cuda.h`.
                    $($field: *unsafe { library.get($symbol) }.map_err(|_| $symbol)?,)*
                    // SAFETY: as above.
                    parameter_info: unsafe { library.get("cuFuncGetParamInfo") }.ok().map(|symbol| *symbol),
                })
            }
        }
    };
}

functions! {
    init: "cuInit"(c_uint);
    version: "cuDriverGetVersion"(*mut c_int);
    error_name: "cuGetErrorName"(Status, *mut *const c_char);
    error_text: "cuGetErrorString"(Status, *mut *const c_char);
    device_count: "cuDeviceGetCount"(*mut c_int);
    device: "cuDeviceGet"(*mut sys::CUdevice, c_int);
    device_name: "cuDeviceGetName"(*mut c_char, c_int, sys::CUdevice);
    device_memory: "cuDeviceTotalMem_v2"(*mut usize, sys::CUdevice);
    device_attribute: "cuDeviceGetAttribute"(*mut c_int, sys::CUdevice_attribute, sys::CUdevice);
    context_retain: "cuDevicePrimaryCtxRetain"(*mut sys::CUcontext, sys::CUdevice);
    context_release: "cuDevicePrimaryCtxRelease_v2"(sys::CUdevice);
    context_push: "cuCtxPushCurrent_v2"(sys::CUcontext);
    context_pop: "cuCtxPopCurrent_v2"(*mut sys::CUcontext);
    memory_info: "cuMemGetInfo_v2"(*mut usize, *mut usize);
    allocate: "cuMemAlloc_v2"(*mut sys::CUdeviceptr, usize);
    free: "cuMemFree_v2"(sys::CUdeviceptr);
    allocate_pinned: "cuMemHostAlloc"(*mut *mut c_void, usize, c_uint);
    free_pinned: "cuMemFreeHost"(*mut c_void);
    copy_in: "cuMemcpyHtoDAsync_v2"(sys::CUdeviceptr, *const c_void, usize, sys::CUstream);
    copy_out: "cuMemcpyDtoHAsync_v2"(*mut c_void, sys::CUdeviceptr, usize, sys::CUstream);
    fill: "cuMemsetD8Async"(sys::CUdeviceptr, u8, usize, sys::CUstream);
    module_load: "cuModuleLoadData"(*mut sys::CUmodule, *const c_void);
    module_unload: "cuModuleUnload"(sys::CUmodule);
    module_function: "cuModuleGetFunction"(*mut sys::CUfunction, sys::CUmodule, *const c_char);
    function_set: "cuFuncSetAttribute"(sys::CUfunction, sys::CUfunction_attribute, c_int);
    occupancy: "cuOccupancyMaxActiveBlocksPerMultiprocessor"(*mut c_int, sys::CUfunction, c_int, usize);
    launch: "cuLaunchKernel"(
        sys::CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, sys::CUstream, *mut *mut c_void,
        *mut *mut c_void
    );
    launch_cooperative: "cuLaunchCooperativeKernel"(
        sys::CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, sys::CUstream, *mut *mut c_void
    );
    stream_create: "cuStreamCreate"(*mut sys::CUstream, c_uint);
    stream_destroy: "cuStreamDestroy_v2"(sys::CUstream);
    stream_wait: "cuStreamSynchronize"(sys::CUstream);
    capture_begin: "cuStreamBeginCapture_v2"(sys::CUstream, sys::CUstreamCaptureMode);
    capture_end: "cuStreamEndCapture"(sys::CUstream, *mut sys::CUgraph);
    graph_destroy: "cuGraphDestroy"(sys::CUgraph);
    graph_instantiate: "cuGraphInstantiateWithFlags"(*mut sys::CUgraphExec, sys::CUgraph, c_ulonglong);
    graph_launch: "cuGraphLaunch"(sys::CUgraphExec, sys::CUstream);
    graph_exec_destroy: "cuGraphExecDestroy"(sys::CUgraphExec);
    event_create: "cuEventCreate"(*mut sys::CUevent, c_uint);
    event_destroy: "cuEventDestroy_v2"(sys::CUevent);
    event_record: "cuEventRecord"(sys::CUevent, sys::CUstream);
    event_wait: "cuEventSynchronize"(sys::CUevent);
    event_elapsed: "cuEventElapsedTime"(*mut f32, sys::CUevent, sys::CUevent);
}

impl Functions {
    /// The driver, ready for use.
    ///
    /// # Errors
    /// No driver, one that is too old, or one that sees no device.
    pub fn get() -> Result<&'static Functions> {
        let cuda = match Functions::library() {
            None => {
                return Err(unusable("no NVIDIA driver here (libcuda is not found): install it, or use device cpu"));
            }
            Some(Err(symbol)) => {
                return Err(unusable(&format!("the NVIDIA driver is too old (it lacks {symbol}): update it")));
            }
            Some(Ok(cuda)) => cuda,
        };
        // SAFETY: the one argument must be 0.
        let status = unsafe { (cuda.init)(0) };
        if status == sys::CUresult::CUDA_ERROR_NO_DEVICE as Status {
            return Err(unusable("the NVIDIA driver sees no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES"));
        }
        cuda.check("cuInit", status)?;
        let version = cuda.driver_version()?;
        if version < VERSION_MIN {
            let [found, wanted] = [version, VERSION_MIN].map(version_text);
            return Err(unusable(&format!(
                "the NVIDIA driver is too old (for CUDA {found}, {wanted} is the least): update it"
            )));
        }
        Ok(cuda)
    }

    /// Whether there is a driver, of any age.
    pub fn are_there() -> bool {
        Functions::library().is_some()
    }

    /// All functions or the name of one that is missing; none without a driver.
    fn library() -> &'static Option<std::result::Result<Functions, &'static str>> {
        static FUNCTIONS: OnceLock<Option<std::result::Result<Functions, &'static str>>> = OnceLock::new();
        FUNCTIONS.get_or_init(|| {
            // SAFETY: libcuda is a library that may be loaded at any time.
            unsafe { sys::is_culib_present() }.then(Functions::look_up)
        })
    }

    /// How many devices there are.
    pub fn devices(&self) -> Result<usize> {
        let mut count = 0;
        // SAFETY: the driver writes one integer.
        self.check("cuDeviceGetCount", unsafe { (self.device_count)(&mut count) })?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// The driver's version of CUDA, as in "12.8".
    pub fn version_text(&self) -> String {
        self.driver_version().map_or("unknown".into(), version_text)
    }

    /// The driver's version of CUDA, as `1000 * major + 10 * minor`.
    pub fn driver_version(&self) -> Result<c_int> {
        let mut version = 0;
        // SAFETY: the driver writes one integer.
        self.check("cuDriverGetVersion", unsafe { (self.version)(&mut version) })?;
        Ok(version)
    }

    fn check(&self, what: &str, status: Status) -> Result<()> {
        if status == SUCCESS { Ok(()) } else { Err(unusable(&format!("{what}: {}", self.describe(status)))) }
    }

    /// A status in words, as in "CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)".
    pub fn describe(&self, status: Status) -> String {
        let words = |function: unsafe extern "C" fn(Status, *mut *const c_char) -> Status| {
            let mut text = null();
            // SAFETY: the driver writes a pointer to a text that lives as long as the process, or null.
            let status = unsafe { function(status, &mut text) };
            // SAFETY: as above.
            (status == SUCCESS && !text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy())
        };
        match (words(self.error_name), words(self.error_text)) {
            (Some(name), Some(text)) => format!("{name} ({text})"),
            _ => format!("CUDA error {status}"),
        }
    }
}

/// A version in words, as in "12.8".
pub fn version_text(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Why no device of this kind can be used.
fn unusable(reason: &str) -> Error {
    Error::device("cuda", reason)
}
