"""Ways through one work list: in this process, in worker processes, under torchrun, on Ray."""
