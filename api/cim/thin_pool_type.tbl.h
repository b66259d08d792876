/* api/cim/thin_pool_type.tbl.h - CIM_StorageSetting.ThinProvisionedPoolType. ROW(value, symbol, name). */
ROW(7, CIM_THIN_ALLOCATED, "ThinlyProvisionedAllocatedStoragePool")
ROW(8, CIM_THIN_QUOTA, "ThinlyProvisionedQuotaStoragePool")
ROW(9, CIM_THIN_LIMITLESS, "ThinlyProvisionedLimitlessStoragePool")
