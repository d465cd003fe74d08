"""Records of what took no time: benches, certificates, scans, sweeps, and a Tune."""
