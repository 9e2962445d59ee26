//! Devices by name. The CPU is always there; the others are features of the build.

use burn::tensor::{DType, Device};
use narthex_base::{Error, Result, config::Schedule};
use narthex_kernels::Precision;

/// The CPU device. `autodiff` adds gradient tracking.
pub fn cpu() -> Device {
    Device::flex()
}

/// The device of this name: the first of its kind that the machine has. It must be able to compute in `precision`.
///
/// # Errors
/// If there is no such kind, this build does not have it, or the machine does not.
pub fn device(name: &str, precision: Precision) -> Result<Device> {
    let found: Option<Vec<Device>> = match name {
        "cpu" => return Ok(cpu()),
        #[cfg(feature = "cuda")]
        "cuda" => Some(Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec()),
        #[cfg(feature = "rocm")]
        "rocm" => Some(Device::enumerate(burn::tensor::DeviceType::Rocm).into_vec()),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(Device::enumerate(burn::tensor::DeviceType::Vulkan).into_vec()),
        #[cfg(feature = "metal")]
        "metal" => Some(Device::enumerate(burn::tensor::DeviceType::Metal).into_vec()),
        #[cfg(feature = "wgpu")]
        "wgpu" => Some(Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec()),
        _ => None,
    };
    match found {
        Some(devices) => {
            let device = devices.into_iter().next().ok_or_else(|| {
                Error::input(format!("this machine has no {name} device that can be used"))
                    .help("install its driver, or use `--device cpu`")
            })?;
            if precision == Precision::Bf16 && !device.supports_dtype(DType::BF16) {
                return Err(Error::input(format!("the {name} device of this machine cannot compute in bf16"))
                    .help("set `precision = \"f32\"`, or use another device"));
            }
            Ok(device)
        }
        None if Schedule::DEVICES.contains(&name) => Err(Error::input(format!("this build of narthex has no {name}"))
            .help(format!("build it with `cargo build --release --features {name}`, or use `--device cpu`"))),
        None => Err(Error::input(format!("there is no device `{name}`"))
            .help(format!("one of: {}", Schedule::DEVICES.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        assert_eq!(device("cpu", Precision::Bf16).unwrap(), cpu());
        let error = device("tpu", Precision::F32).unwrap_err();
        assert!(error.to_string().contains("no device `tpu`"), "{error}");
        #[cfg(not(feature = "cuda"))]
        assert!(device("cuda", Precision::F32).unwrap_err().to_string().contains("this build of narthex has no cuda"));
    }
}
