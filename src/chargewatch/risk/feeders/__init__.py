"""What feeder meters say: their days as dense blocks, noise, balances, statements on errors."""
