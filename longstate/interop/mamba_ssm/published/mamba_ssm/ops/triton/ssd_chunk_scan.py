from longstate.interop.mamba_ssm.ssd_stages import chunk_scan as chunk_scan

chunk_scan_ref = chunk_scan
