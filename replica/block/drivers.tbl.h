/* replica/block/drivers.tbl.h - one row a driver: DRIVER(name, open function, what it is).
 *
 * To add one: a .c file with the open function, a row here, a row in the fixture table of
 * tests/replica/block/; the contract suite then runs for it.
 */
DRIVER(memory, block_memory_open, "bytes of this process, for tests and the simulator")
DRIVER(file, block_file_open, "a regular file, read and written off-loop")
DRIVER(iscsi, block_iscsi_open, "a LUN of an iSCSI target, through libiscsi")
