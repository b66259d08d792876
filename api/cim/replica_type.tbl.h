/* api/cim/replica_type.tbl.h - CIM_StorageSynchronized.ReplicaType. ROW(value, symbol, name). */
ROW(0, CIM_REPLICA_NOT_SPECIFIED, "Not Specified")
ROW(2, CIM_REPLICA_FULL_COPY, "Full Copy")
ROW(3, CIM_REPLICA_BEFORE_DELTA, "Before Delta")
ROW(4, CIM_REPLICA_AFTER_DELTA, "After Delta")
ROW(5, CIM_REPLICA_LOG, "Log")
