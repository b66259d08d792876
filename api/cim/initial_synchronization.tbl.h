/* api/cim/initial_synchronization.tbl.h - CIM_StorageSetting.InitialSynchronization. ROW(value, symbol, name). */
ROW(0, CIM_INITIAL_NOT_APPLICABLE, "Not Applicable")
ROW(1, CIM_INITIAL_NOT_MANAGED, "Not Managed")
ROW(2, CIM_INITIAL_START, "Start")
ROW(3, CIM_INITIAL_DO_NOT_START, "Do Not Start")
