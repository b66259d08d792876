/* api/cim/copy_type.tbl.h - CIM_StorageSynchronized.CopyType. ROW(value, symbol, name). */
ROW(2, CIM_COPY_ASYNC, "Async")
ROW(3, CIM_COPY_SYNC, "Sync")
ROW(4, CIM_COPY_UNSYNC_ASSOC, "UnSyncAssoc")
ROW(5, CIM_COPY_UNSYNC_UNASSOC, "UnSyncUnAssoc")
