using System.Runtime.InteropServices;

namespace Rlhf.Trainer.Native;

/// <summary>
/// The memory of the first CUDA device, asked from the driver, since TorchSharp does not offer it. libtorch keeps what it once took, so
/// that what is in use at the end of a job is what the process took at its highest.
/// </summary>
internal static unsafe class CudaMemory
{
    private const int Success = 0;

    /// <summary>Free bytes and all bytes; null where there is no driver or no device.</summary>
    public static (long Free, long Total)? Read()
    {
        if (!NativeLibrary.TryLoad(OperatingSystem.IsWindows() ? "nvcuda.dll" : "libcuda.so.1", out nint driver))
            return null;
        var initialise = (delegate* unmanaged<uint, int>)NativeLibrary.GetExport(driver, "cuInit");
        var deviceAt = (delegate* unmanaged<int*, int, int>)NativeLibrary.GetExport(driver, "cuDeviceGet");
        var retain = (delegate* unmanaged<nint*, int, int>)NativeLibrary.GetExport(driver, "cuDevicePrimaryCtxRetain");
        var release = (delegate* unmanaged<int, int>)NativeLibrary.GetExport(driver, "cuDevicePrimaryCtxRelease_v2");
        var push = (delegate* unmanaged<nint, int>)NativeLibrary.GetExport(driver, "cuCtxPushCurrent_v2");
        var pop = (delegate* unmanaged<nint*, int>)NativeLibrary.GetExport(driver, "cuCtxPopCurrent_v2");
        var information = (delegate* unmanaged<nuint*, nuint*, int>)NativeLibrary.GetExport(driver, "cuMemGetInfo_v2");

        int device;
        nint context;
        if (initialise(0) != Success || deviceAt(&device, 0) != Success || retain(&context, device) != Success)
            return null;
        try
        {
            nuint free, total;
            if (push(context) != Success)
                return null;
            int read = information(&free, &total);
            pop(&context);
            return read == Success ? ((long)free, (long)total) : null;
        }
        finally
        {
            release(device);
        }
    }
}
