/* api/cim/copy_priority.tbl.h - CIM_StorageSynchronized.CopyPriority (not ReplicationPriority's numbers). ROW(value, symbol, name). */
ROW(0, CIM_COPY_PRIORITY_NOT_MANAGED, "Not Managed")
ROW(1, CIM_COPY_PRIORITY_LOW, "Low")
ROW(2, CIM_COPY_PRIORITY_SAME, "Same")
ROW(3, CIM_COPY_PRIORITY_HIGH, "High")
ROW(4, CIM_COPY_PRIORITY_URGENT, "Urgent")
