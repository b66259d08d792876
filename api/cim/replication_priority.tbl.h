/* api/cim/replication_priority.tbl.h - CIM_StorageSetting.ReplicationPriority (not CopyPriority's numbers). ROW(value, symbol, name). */
ROW(0, CIM_REPLICATION_PRIORITY_NOT_APPLICABLE, "Not Applicable")
ROW(1, CIM_REPLICATION_PRIORITY_NOT_MANAGED, "Not Managed")
ROW(2, CIM_REPLICATION_PRIORITY_LOW, "Low")
ROW(3, CIM_REPLICATION_PRIORITY_SAME, "Same")
ROW(4, CIM_REPLICATION_PRIORITY_HIGH, "High")
